// What is taken away: tables and JSON made here, DICOM objects made by the server, the picture as it is seen.

import { object as make } from "./api.js";
import { draw } from "./overlay.js";
import { shade } from "./viewer.js";

const NO_FINDING = 15;
const FOOTER = "xray – not for clinical use";

// items: [{id, answer}]. shownOf(item) → the findings that are shown of it. A readable table.
export function table(items, shownOf) {
  const rows = [["image_id", "finding", "confidence", "x_min", "y_min", "x_max", "y_max"]];
  for (const item of items) {
    for (const { name, score, box } of shownOf(item)) rows.push([item.id, name, score, ...box]);
  }
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

// Rows of Kaggle's VinBigData submission: `class_id confidence x_min y_min x_max y_max`, however faint.
export function submission(items) {
  const rows = items.map(({ id, answer }) => {
    const parts = answer.findings.map(({ category_id, score, box }) => {
      return [score, category_id - 1, box.map((value) => value.toFixed(1))];
    });
    if (answer.normal !== null) parts.push([answer.normal, NO_FINDING - 1, [0, 0, 1, 1]]);
    parts.sort((a, b) => b[0] - a[0]);
    const text = parts.map(([score, number, box]) => `${number} ${decimal(score)} ${box.join(" ")}`).join(" ");
    return `${cell(id)},${text || "14 1 0 0 1 1"}\n`;
  });
  return `image_id,PredictionString\n${rows.join("")}`;
}

// COCO results, however faint.
export function results(items) {
  const rows = items.flatMap(({ id, answer }) => {
    const own = answer.findings.map(({ category_id, score, box: [x1, y1, x2, y2], mask }) => ({
      image_id: id,
      category_id,
      bbox: [x1, y1, round(x2 - x1), round(y2 - y1)],
      score,
      ...(mask ? { segmentation: mask } : {}),
    }));
    if (answer.normal !== null) {
      own.push({ image_id: id, category_id: NO_FINDING, bbox: [0, 0, 1, 1], score: answer.normal });
    }
    return own;
  });
  return `[\n${rows.map((row) => JSON.stringify(row)).join(",\n")}\n]\n`;
}

// The whole radiograph in its own size, in the window and with the findings that are seen → a promise of a PNG.
export function picture(radiograph, findings, layers, { window, isInverted }) {
  const { width, height } = radiograph;
  const unit = Math.max(1, Math.max(width, height) / 900);
  const strip = Math.round(24 * unit);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height + strip;
  const context = canvas.getContext("2d");
  context.fillStyle = "#10151b";
  context.fillRect(0, 0, width, height + strip);
  const image = new ImageData(width, height);
  shade(image, radiograph.levels[0].samples, width, 0, 0, radiograph.table(window, isInverted));
  context.putImageData(image, 0, 0);
  const unlit = findings.map((finding) => ({ ...finding, isLit: false }));
  draw(context, { scale: 1, x: 0, y: 0 }, unlit, { ...layers, unit, area: { x: 0, y: 0, width, height } });
  context.fillStyle = "#f5bd4f";
  context.font = `${Math.round(12 * unit)}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  context.fillText(FOOTER, Math.round(8 * unit), height + strip / 2);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => {
      if (blob) resolve(blob);
      else reject(new Error("this browser cannot make so large a picture"));
    }, "image/png");
  });
}

// An object of one radiograph, of a kind of api.js, with the findings that are shown.
export function object(kind, item, shown) {
  const findings = shown.map(({ category_id, category, score, box, rle }) => {
    return { category_id, category, score, box, mask: rle };
  });
  return make(kind, item.file, { ...item.answer, findings });
}

export function save(content, name, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name.replace(/[^\p{L}\p{N}._ ()-]/gu, "_") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function cell(value) {
  let text = typeof value === "number" ? String(value) : value;
  // Spreadsheets run what begins like a formula, and a file may be called anything.
  if (typeof value === "string" && /^[=+@\t\r-]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Without an exponent, so that every reader takes it.
function decimal(value) {
  return value === 0 || value >= 1e-6 ? String(value) : value.toFixed(9);
}

function round(value) {
  return Math.round(value * 100) / 100;
}
