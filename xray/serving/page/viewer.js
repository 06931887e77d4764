// The canvas: a radiograph with zoom, pan, window and level, and its findings on top.

import { draw } from "./overlay.js";

const MOST = 16; // canvas pixels for one of the radiograph
const MARGIN = 0.25; // of what is seen, rendered beside it, so that small moves need no rendering

export class Viewer {
  // hooks: onView(), onWindow(), onHover(finding | null), onPick(finding), onProbe({x, y, value} | null).
  constructor(canvas, hooks) {
    this.canvas = canvas;
    this.hooks = hooks;
    this.context = canvas.getContext("2d", { alpha: false });
    this.sheet = document.createElement("canvas");
    this.radiograph = null;
    this.findings = [];
    this.layers = { boxes: true, tags: true, masks: true };
    this.view = { scale: 1, x: 0, y: 0 };
    this.isFitted = true;
    this.window = null;
    this.isInverted = false;
    this.rendered = null;
    this.isDue = false;
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  get unit() {
    return Math.max(1, window.devicePixelRatio || 1);
  }

  // radiograph: or null. keeps: whether view and window stay.
  show(radiograph, { window = null, isInverted = false } = {}) {
    this.radiograph = radiograph;
    this.rendered = null;
    this.table = null;
    this.window = window;
    this.isInverted = isInverted;
    this.fit();
    this.hooks.onWindow();
  }

  setFindings(findings) {
    this.findings = findings;
    this.redraw();
  }

  setLayer(name, isOn) {
    this.layers[name] = isOn;
    this.redraw();
  }

  // window: {center, width}, or null for the file's own table.
  setWindow(window) {
    this.window = window;
    this.table = null;
    this.redraw();
    this.hooks.onWindow();
  }

  // By shares of the width; the first change starts from the window nearest to the file's own.
  changeWindow(level, width) {
    if (!this.radiograph) return;
    const now = this.window ?? this.radiograph.ownWindow();
    this.setWindow({ center: now.center + level * now.width, width: Math.max(1, now.width * Math.exp(width)) });
  }

  setInverted(isInverted) {
    this.isInverted = isInverted;
    this.table = null;
    this.redraw();
    this.hooks.onWindow();
  }

  resize() {
    const width = Math.max(1, Math.round(this.canvas.clientWidth * this.unit));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * this.unit));
    if (width === this.canvas.width && height === this.canvas.height) return;
    const [dx, dy] = [(width - this.canvas.width) / 2, (height - this.canvas.height) / 2];
    this.canvas.width = width;
    this.canvas.height = height;
    if (this.isFitted) this.fit();
    else this.moveTo({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
    this.render();
  }

  get fittingScale() {
    const { width, height } = this.radiograph;
    return 0.985 * Math.min(this.canvas.width / width, this.canvas.height / height);
  }

  fit() {
    this.isFitted = true;
    if (this.radiograph) this.center(this.fittingScale, this.radiograph.width / 2, this.radiograph.height / 2);
    this.redraw();
  }

  // One pixel of the radiograph for one of the screen, around the middle of what is seen.
  full() {
    this.zoomTo(1);
  }

  // Has a point of the radiograph in the middle.
  center(scale, x, y) {
    this.moveTo({ scale, x: this.canvas.width / 2 - x * scale, y: this.canvas.height / 2 - y * scale });
  }

  // Zooms to a box, with room around it.
  zoomToBox([x1, y1, x2, y2]) {
    const [across, down] = [this.canvas.width / (x2 - x1), this.canvas.height / (y2 - y1)];
    const scale = Math.min(across / 2.2, down / 2.2, 4 * this.unit);
    this.isFitted = false;
    this.center(Math.max(scale, this.fittingScale), (x1 + x2) / 2, (y1 + y2) / 2);
  }

  zoomBy(factor, at) {
    this.zoomTo(this.view.scale * factor, at);
  }

  // at: {x, y} on the canvas that stays where it is; its middle by default.
  zoomTo(scale, at = { x: this.canvas.width / 2, y: this.canvas.height / 2 }) {
    if (!this.radiograph) return;
    const next = Math.min(Math.max(scale, this.fittingScale * 0.5), Math.max(MOST, this.fittingScale));
    const factor = next / this.view.scale;
    this.isFitted = false;
    this.moveTo({ scale: next, x: at.x - (at.x - this.view.x) * factor, y: at.y - (at.y - this.view.y) * factor });
  }

  panBy(dx, dy) {
    if (!this.radiograph) return;
    this.isFitted = false;
    this.moveTo({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  moveTo({ scale, x, y }) {
    if (this.radiograph) {
      // The middle of the canvas stays on the radiograph, so that it cannot be lost.
      const inside = (at, length, room) => Math.min(room / 2, Math.max(room / 2 - length * scale, at));
      x = inside(x, this.radiograph.width, this.canvas.width);
      y = inside(y, this.radiograph.height, this.canvas.height);
    }
    // Whole pixels, so that a radiograph shown a pixel for a pixel is not blurred.
    this.view = { scale, x: Math.round(x), y: Math.round(y) };
    this.redraw();
    this.hooks.onView();
  }

  toRadiograph({ x, y }) {
    return { x: (x - this.view.x) / this.view.scale, y: (y - this.view.y) / this.view.scale };
  }

  // The smallest finding whose box is under a point of the canvas.
  findingAt(point) {
    if (!this.layers.boxes) return null;
    const { x, y } = this.toRadiograph(point);
    const slack = (4 * this.unit) / this.view.scale;
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const under = this.findings.filter(({ box: [x1, y1, x2, y2] }) =>
      x >= x1 - slack && x <= x2 + slack && y >= y1 - slack && y <= y2 + slack);
    return under.sort((a, b) => area(a) - area(b))[0] ?? null;
  }

  probe(point) {
    const { x, y } = this.toRadiograph(point);
    const [column, row] = [Math.floor(x), Math.floor(y)];
    const { width, height, levels } = this.radiograph ?? { width: 0, height: 0 };
    if (column < 0 || row < 0 || column >= width || row >= height) return null;
    return { x: column, y: row, value: this.radiograph.value(levels[0].samples[row * width + column]) };
  }

  redraw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    this.isDue = false;
    const { context, canvas, view } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (!this.radiograph) return;
    const { x, y, width, height, level } = this.renderSamples();
    const size = 2 ** level;
    context.imageSmoothingEnabled = view.scale < 3;
    context.imageSmoothingQuality = "medium";
    context.save();
    context.beginPath();
    context.rect(view.x, view.y, this.radiograph.width * view.scale, this.radiograph.height * view.scale);
    context.clip();
    const scale = size * view.scale;
    const place = [view.x + x * scale, view.y + y * scale, width * scale, height * scale];
    context.drawImage(this.sheet, 0, 0, width, height, ...place);
    context.restore();
    const area = { x: 0, y: 0, width: canvas.width, height: canvas.height };
    draw(context, view, this.findings, { ...this.layers, unit: this.unit, area });
  }

  // What is seen, as grey, at the resolution that the screen can show → its place in samples of that level.
  renderSamples() {
    const { view, canvas, radiograph } = this;
    const deepest = Math.floor(Math.log2(Math.max(1, Math.min(radiograph.width, radiograph.height) / 64)));
    const level = Math.min(Math.max(0, Math.floor(Math.log2(1 / view.scale))), deepest);
    const { width, height, samples } = radiograph.level(level);
    const scale = view.scale * 2 ** level;
    const seen = {
      left: Math.max(0, Math.floor(-view.x / scale)),
      top: Math.max(0, Math.floor(-view.y / scale)),
      right: Math.min(width, Math.ceil((canvas.width - view.x) / scale)),
      bottom: Math.min(height, Math.ceil((canvas.height - view.y) / scale)),
    };
    this.table ??= radiograph.table(this.window, this.isInverted);
    const last = this.rendered;
    if (last && last.table === this.table && last.level === level && holds(last, seen)) return last;
    const [aside, above] = [MARGIN * (seen.right - seen.left), MARGIN * (seen.bottom - seen.top)].map(Math.ceil);
    const x = Math.max(0, seen.left - aside);
    const y = Math.max(0, seen.top - above);
    const w = Math.max(1, Math.min(width, seen.right + aside) - x);
    const h = Math.max(1, Math.min(height, seen.bottom + above) - y);
    const image = new ImageData(w, h);
    shade(image, samples, width, x, y, this.table);
    this.sheet.width = w;
    this.sheet.height = h;
    this.sheet.getContext("2d").putImageData(image, 0, 0);
    this.rendered = { table: this.table, level, x, y, width: w, height: h };
    return this.rendered;
  }
}

function holds({ x, y, width, height }, { left, top, right, bottom }) {
  return x <= left && y <= top && x + width >= right && y + height >= bottom;
}

// Fills an image with a part of the samples, which begins at (x, y).
export function shade(image, samples, stride, x, y, table) {
  const words = new Uint32Array(image.data.buffer);
  for (let row = 0, to = 0; row < image.height; row++) {
    let from = (y + row) * stride + x;
    for (let column = 0; column < image.width; column++) words[to++] = table[samples[from++]];
  }
}
