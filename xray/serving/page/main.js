// Puts the parts together: which radiograph is shown, which of its findings, and what keys do.

import * as api from "./api.js";
import { Downloading } from "./downloading.js";
import { handleDrops } from "./dropping.js";
import { Files } from "./files.js";
import { handleKeys } from "./keys.js";
import { Panel, written } from "./panel.js";
import { parse } from "./pixels.js";
import { handlePointers } from "./pointer.js";
import { outline } from "./rle.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
// Bytes of pixels that are kept; older radiographs are decoded again when they are looked at.
const MEMORY = 400 * 2 ** 20;

const settings = { confidence: 0.3, hidden: new Set(), lit: null, mode: "move" };
let server = { categories: [], exports: [], has_boxes: true };

const panel = new Panel({
  onConfidence: (value) => {
    settings.confidence = value;
    showFindings();
  },
  onLayer: (category, isOn) => {
    if (isOn) settings.hidden.delete(category);
    else settings.hidden.add(category);
    showFindings();
  },
  onLight: light,
  onZoom: (finding) => {
    viewer.zoomToBox(finding.box);
    // On a phone the radiograph stands above the table.
    $("viewer").scrollIntoView({ block: "nearest" });
  },
  onWindow: (window) => viewer.setWindow(window),
});

const viewer = new Viewer($("canvas"), {
  onView: () => {
    $("zoom").textContent = viewer.radiograph ? `${Math.round(100 * viewer.view.scale)} %` : "–";
  },
  onWindow: showWindow,
  onHover: (finding) => {
    $("canvas").classList.toggle("pointing", finding !== null);
    if (settings.lit !== finding) light(finding, { scrolls: true });
  },
  onPick: (finding) => finding && panel.focus(finding),
  onProbe: (point) => {
    $("hud-pixel").textContent = point ? `${point.x}, ${point.y}: ${written(point.value)}` : sizeText();
  },
});
const pointers = handlePointers(viewer);

const files = new Files({
  onSelect: show,
  onChange: (item) => {
    if (item.answer) item.findings = prepared(item.answer);
    files.summarize(item, summary(item));
    if (item === files.current) showAnswer();
    downloading.show();
  },
  onProgress: (item) => item === files.current && showWaiting(),
  onRemove: (item) => {
    item.radiograph = null;
    downloading.show();
  },
  say,
});

const downloading = new Downloading({
  files,
  viewer,
  shownOf: (item) => shownOf(item).shown,
  loadPixels,
  server: () => server,
  say,
});

// What the server answered, made ready to be drawn.
function prepared(answer) {
  const colours = new Map(server.categories.map(({ id, colour }) => [id, colour]));
  return answer.findings.map((finding) => ({
    ...finding,
    name: finding.category,
    // Where thresholds were fitted, people see the calibrated probability; files of scores are made from the answer.
    score: finding.probability ?? finding.score,
    colour: colours.get(finding.category_id) ?? "#7fbcff",
    rle: finding.mask,
    mask: finding.mask ? outline(finding.mask) : null,
    isLit: false,
  })).sort((a, b) => b.score - a.score);
}

// Those that count as found, or that the slider lets through, and of these the ones whose layer is on.
function shownOf(item) {
  const isSure = ({ score, is_positive }) => settings.confidence === null ? is_positive : score >= settings.confidence;
  const sure = (item?.findings ?? []).filter(isSure);
  return { sure, shown: sure.filter(({ category_id }) => !settings.hidden.has(category_id)) };
}

async function show(item) {
  document.title = item ? `${item.file.name} – xray` : "xray";
  $("hud-name").textContent = item?.file.name ?? "";
  $("canvas").setAttribute("aria-label", item ? `Radiograph ${item.file.name}` : "No radiograph yet");
  $("empty").hidden = item !== null;
  viewer.show(item?.radiograph ?? null, item?.display);
  showAnswer();
  if (item && !item.radiograph && item.state !== "failed") await loadPixels(item);
}

async function loadPixels(item) {
  item.isLoading = true;
  item.pixelProblem = "";
  showWaiting();
  try {
    item.radiograph = parse(await api.pixels(item.file, item.abort.signal));
    item.seenAt = performance.now();
  } catch (error) {
    // What is wrong with the file is said where its findings would be.
    if (error.name !== "AbortError") item.pixelProblem = error.message;
  }
  item.isLoading = false;
  forgetOld(item);
  if (item !== files.current) return;
  viewer.show(item.radiograph ?? null, item.display);
  showAnswer();
}

function forgetOld(newest) {
  const kept = files.items.filter(({ radiograph }) => radiograph).sort((a, b) => b.seenAt - a.seenAt);
  let bytes = 0;
  for (const item of kept) {
    bytes += item.radiograph.bytes;
    if (bytes > MEMORY && item !== newest && item !== files.current) item.radiograph = null;
  }
}

function showAnswer() {
  settings.lit = null;
  panel.showAnswer(files.current?.answer ?? null);
  showFindings();
  showWaiting();
  downloading.show();
}

function showFindings() {
  const item = files.current;
  const { sure, shown } = shownOf(item);
  const layers = new Map();
  for (const { category_id, name, colour } of sure) {
    const count = (layers.get(category_id)?.count ?? 0) + 1;
    layers.set(category_id, { category: category_id, name, colour, count, isOn: !settings.hidden.has(category_id) });
  }
  const spacing = item?.radiograph?.spacing ?? null;
  const facts = { hasAnswer: Boolean(item?.answer), hasBoxes: server.has_boxes, spacing };
  panel.showFindings([...layers.values()], shown, facts);
  viewer.setFindings(item?.radiograph ? shown : []);
  if (settings.lit && !shown.includes(settings.lit)) light(null);
  for (const other of files.items) files.summarize(other, summary(other));
  const from = settings.confidence === null ? "from their own thresholds" :
    `from a confidence of ${settings.confidence.toFixed(2)}`;
  if (item?.answer) say(`${count(shown.length)} ${from} in ${item.file.name}`);
}

function summary(item) {
  if (!item.answer) return "";
  const isMarked = item.answer.image_check?.warnings.length;
  return isMarked ? `${found(item)} – is it the right image?` : found(item);
}

function found(item) {
  if (!server.has_boxes) {
    const { labels, label_probabilities } = item.answer;
    const [surest] = Object.entries({ ...labels, ...label_probabilities }).sort((a, b) => b[1] - a[1]);
    return surest ? `${surest[0]} ${surest[1].toFixed(2)}` : "done";
  }
  const { sure } = shownOf(item);
  if (!sure.length) return settings.confidence === null ? "nothing found" : `nothing from ${settings.confidence.toFixed(2)}`;
  return `${count(sure.length)}: ${sure[0].name} ${sure[0].score.toFixed(2)}`;
}

function count(n) {
  return n === 1 ? "1 finding" : `${n || "no"} findings`;
}

function light(finding, options) {
  if (settings.lit) settings.lit.isLit = false;
  settings.lit = finding;
  if (finding) finding.isLit = true;
  panel.light(finding, options);
  viewer.redraw();
}

function showWindow() {
  const item = files.current;
  const { radiograph, window, isInverted } = viewer;
  if (item && radiograph) item.display = { window, isInverted };
  panel.showWindow(radiograph, window);
  press("invert", isInverted);
  $("hud-pixel").textContent = sizeText();
  const { center, width } = radiograph ? window ?? radiograph.ownWindow() : {};
  const text = radiograph ? `L ${written(center)}  W ${written(width)}${isInverted ? "  inverted" : ""}` : "";
  $("hud-window").textContent = text;
}

function sizeText() {
  return viewer.radiograph ? `${viewer.radiograph.width} × ${viewer.radiograph.height} px` : "";
}

function showWaiting() {
  const item = files.current;
  let text = "";
  if (item?.state === "failed") text = item.problem;
  else if (item?.pixelProblem) text = item.pixelProblem;
  else if (item?.isLoading) text = "The radiograph is being read";
  else if (item && !item.answer) text = `Findings: ${item.text.textContent}`;
  $("waiting").hidden = !text;
  $("waiting").firstElementChild.hidden = item?.state === "failed" || Boolean(item?.pixelProblem);
  $("waiting-text").textContent = text;
}

let saying = null;
function say(text) {
  // Of a slider that is being moved, only where it ends is told.
  clearTimeout(saying);
  saying = setTimeout(() => { $("live").textContent = text; }, 250);
}

function press(id, isOn) {
  $(id).setAttribute("aria-pressed", isOn);
}

function toggleLayer(id) {
  const isOn = !viewer.layers[id];
  viewer.setLayer(id, isOn);
  press(id, isOn);
  say(`${id} ${isOn ? "on" : "off"}`);
}

function toggleMode() {
  settings.mode = settings.mode === "window" ? "move" : "window";
  pointers.setMode(settings.mode);
  press("mode", settings.mode === "window");
}

function changeConfidence(by) {
  const before = settings.confidence ?? server.shown_from;
  settings.confidence = Math.min(1, Math.max(0, Math.round(100 * (before + by)) / 100));
  panel.setConfidence(settings.confidence);
  showFindings();
}

const actions = {
  zoomIn: () => viewer.zoomBy(1.25),
  zoomOut: () => viewer.zoomBy(0.8),
  fit: () => viewer.fit(),
  full: () => viewer.full(),
  pan: (x, y) => viewer.panBy(x * 60 * viewer.unit, y * 60 * viewer.unit),
  window: (level, width) => viewer.changeWindow(level * 0.05, width * 0.1),
  invert: () => viewer.radiograph && viewer.setInverted(!viewer.isInverted),
  reset: () => viewer.radiograph && viewer.setWindow(null),
  mode: toggleMode,
  boxes: () => toggleLayer("boxes"),
  tags: () => toggleLayer("tags"),
  masks: () => toggleLayer("masks"),
  confidence: changeConfidence,
  next: () => files.step(1),
  previous: () => files.step(-1),
  help: () => $("keys").showModal(),
};

$("zoom-in").addEventListener("click", actions.zoomIn);
$("zoom-out").addEventListener("click", actions.zoomOut);
for (const id of ["fit", "full", "mode", "invert", "boxes", "tags", "masks", "help"]) {
  $(id).addEventListener("click", actions[id]);
}
handleKeys(actions, $("canvas"));

handleDrops((dropped) => files.add(dropped));

show(null);
try {
  server = await api.about();
  files.limit = server.max_bytes;
  // null: each finding from its own threshold.
  settings.confidence = server.found_at ? null : server.shown_from;
  panel.setOperatingPoint(server.found_at, server.shown_from);
  $("card").hidden = !server.has_card;
  const n = server.categories.length;
  $("models").textContent = `${server.models.join(", ")} · ${n} ${n === 1 ? "category" : "categories"}`;
} catch (error) {
  $("models").textContent = error.message;
}
panel.setConfidence(settings.confidence);
downloading.show();
