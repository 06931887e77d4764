// Findings drawn over a radiograph: crisp boxes, masks, and names that do not cover each other.

const INK = "#f2f6fa";
const SHADE = "rgba(7, 10, 14, 0.86)";

// Draws findings onto a canvas that shows the radiograph moved to (x, y) and `scale` canvas pixels for each of its own.
// findings: {box, name, score, colour, mask, isLit}, the surest first. options: boxes, tags, masks (whether), unit
// (canvas pixels for a CSS pixel) and area ({x, y, width, height} that tags stay in).
export function draw(context, { scale, x, y }, findings, options) {
  const { unit } = options;
  const isAnyLit = findings.some((finding) => finding.isLit);
  const places = findings.map(({ box }) => onPixels(box, { scale, x, y }));
  context.save();
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (options.masks) {
    for (const finding of findings) {
      if (finding.mask) drawMask(context, { scale, x, y }, finding, unit, isAnyLit);
    }
  }
  if (options.boxes) {
    // The faintest first, so that the surest lies on top.
    for (let i = findings.length - 1; i >= 0; i--) drawBox(context, places[i], findings[i], unit, isAnyLit);
  }
  if (options.tags) drawTags(context, places, findings, options, isAnyLit);
  context.restore();
}

function onPixels([x1, y1, x2, y2], { scale, x, y }) {
  const left = Math.round(x + x1 * scale);
  const top = Math.round(y + y1 * scale);
  return {
    x: left, y: top,
    width: Math.max(2, Math.round(x + x2 * scale) - left),
    height: Math.max(2, Math.round(y + y2 * scale) - top),
  };
}

function drawBox(context, place, finding, unit, isAnyLit) {
  const line = Math.max(1, Math.round((finding.isLit ? 3 : 1.75) * unit));
  const halo = Math.max(1, Math.round(unit));
  context.globalAlpha = isAnyLit && !finding.isLit ? 0.35 : 1;
  if (finding.isLit) {
    context.fillStyle = `${finding.colour}16`;
    context.fillRect(place.x, place.y, place.width, place.height);
  }
  // A dark line on both sides lets any colour stand out against bone and against lung.
  frame(context, place, line + 2 * halo, "rgba(0, 0, 0, 0.6)");
  frame(context, place, line, finding.colour);
  context.globalAlpha = 1;
}

// Whole pixels, or lines would be blurred.
function frame(context, { x, y, width, height }, line, colour) {
  const out = Math.floor(line / 2);
  const [left, top, w, h] = [x - out, y - out, width + 2 * out, height + 2 * out];
  context.fillStyle = colour;
  context.fillRect(left, top, w, line);
  context.fillRect(left, top + h - line, w, line);
  context.fillRect(left, top + line, line, h - 2 * line);
  context.fillRect(left + w - line, top + line, line, h - 2 * line);
}

function drawMask(context, { scale, x, y }, finding, unit, isAnyLit) {
  const isFaint = isAnyLit && !finding.isLit;
  context.setTransform(scale, 0, 0, scale, x, y);
  context.globalAlpha = isFaint ? 0.1 : finding.isLit ? 0.38 : 0.24;
  context.fillStyle = finding.colour;
  context.fill(finding.mask.path, "evenodd");
  context.globalAlpha = isFaint ? 0.3 : 0.95;
  context.lineJoin = "round";
  context.lineWidth = (1.5 * unit) / scale;
  context.strokeStyle = finding.colour;
  context.stroke(finding.mask.path);
  context.globalAlpha = 1;
  context.setTransform(1, 0, 0, 1, 0, 0);
}

function drawTags(context, places, findings, { unit, area }, isAnyLit) {
  const size = Math.round(12 * unit);
  const pad = Math.round(5 * unit);
  context.font = `500 ${size}px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  const taken = [];
  const order = findings.map((_, index) => index).sort((a, b) => findings[b].isLit - findings[a].isLit);
  for (const index of order) {
    const { name, score, colour, isLit } = findings[index];
    if (!touches(places[index], area, 0)) continue;
    const text = `${name} ${score.toFixed(2)}`;
    const width = Math.ceil(context.measureText(text).width) + 2 * pad + Math.round(4 * unit);
    const place = placeTag({ width, height: size + pad + Math.round(unit) }, places[index], places, taken, area, unit);
    if (!place) continue;
    taken.push(place);
    context.globalAlpha = isAnyLit && !isLit ? 0.4 : 1;
    context.fillStyle = SHADE;
    context.fillRect(place.x, place.y, place.width, place.height);
    context.fillStyle = colour;
    context.fillRect(place.x, place.y, Math.round(4 * unit), place.height);
    context.fillStyle = INK;
    context.fillText(text, place.x + Math.round(4 * unit) + pad, place.y + place.height / 2 + unit * 0.5);
  }
  context.globalAlpha = 1;
}

// Where a tag goes: at its box, where it covers least of the others and no tag; nowhere where it must cover one.
function placeTag({ width, height }, box, boxes, taken, area, unit) {
  const gap = Math.round(3 * unit);
  const [right, bottom] = [box.x + box.width, box.y + box.height];
  const spots = [
    [box.x, box.y - height - gap], [right - width, box.y - height - gap],
    [box.x, bottom + gap], [right - width, bottom + gap],
    [box.x + gap, box.y + gap], [right - width - gap, box.y + gap], [box.x + gap, bottom - height - gap],
    [right + gap, box.y], [box.x - width - gap, box.y],
    [right + gap, bottom - height], [box.x - width - gap, bottom - height],
  ];
  let [best, least] = [null, Infinity];
  spots.forEach(([x, y], number) => {
    const place = { x, y, width, height };
    if (!isInside(place, area) || taken.some((other) => touches(place, other, gap))) return;
    // Hiding a nodule's box costs much, lying over a corner of a large one little; earlier places look better.
    const hidden = boxes.reduce((sum, other) => sum + shared(place, other) / (other.width * other.height), 0);
    const cost = 0.04 * number + hidden;
    if (cost < least) [best, least] = [place, cost];
  });
  if (best) return best;
  // A large box may reach out of the view on all sides: its tag goes to the nearest free place along its top.
  for (let y = Math.max(box.y, area.y) + gap; y + height < Math.min(bottom, area.y + area.height); y += height + gap) {
    const place = { x: Math.min(Math.max(box.x, area.x) + gap, area.x + area.width - width), y, width, height };
    if (place.x >= area.x && !taken.some((other) => touches(place, other, gap))) return place;
  }
  return null;
}

function isInside({ x, y, width, height }, area) {
  return x >= area.x && y >= area.y && x + width <= area.x + area.width && y + height <= area.y + area.height;
}

function touches(a, b, gap) {
  const isBeside = a.x >= b.x + b.width + gap || b.x >= a.x + a.width + gap;
  return !isBeside && a.y < b.y + b.height + gap && b.y < a.y + a.height + gap;
}

function shared(a, b) {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.max(0, width) * Math.max(0, height);
}
