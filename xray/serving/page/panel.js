// The right-hand side: normal probability, confidence, layers, the table of findings, window and level.

const $ = (id) => document.getElementById(id);

// hooks: onConfidence(value), onLayer(category, isOn), onLight(finding | null), onZoom(finding),
// onWindow({center, width} | null).
export class Panel {
  constructor(hooks) {
    this.hooks = hooks;
    this.rows = new Map();
    this.body = $("findings").tBodies[0];
    $("confidence").addEventListener("input", (event) => {
      this.setConfidence(Number(event.target.value));
      hooks.onConfidence(Number(event.target.value));
    });
    $("own").addEventListener("click", () => {
      this.setConfidence(null);
      hooks.onConfidence(null);
    });
    this.body.addEventListener("mouseover", (event) => hooks.onLight(this.findingOf(event.target)));
    this.body.addEventListener("mouseleave", () => hooks.onLight(this.findingOf(document.activeElement)));
    this.body.addEventListener("focusin", (event) => hooks.onLight(this.findingOf(event.target)));
    this.body.addEventListener("focusout", () => hooks.onLight(null));
    this.body.addEventListener("click", (event) => {
      const finding = this.findingOf(event.target);
      if (finding) hooks.onZoom(finding);
    });
    this.body.addEventListener("keydown", (event) => this.walk(event));
    for (const id of ["level", "width"]) $(id).addEventListener("input", () => this.readSliders(id));
    $("preset").addEventListener("change", (event) => hooks.onWindow(this.presets.get(event.target.value)));
  }

  // foundAt: where each finding has a threshold of its own, what these reach. start: where the slider then begins.
  setOperatingPoint(foundAt, start) {
    $("own").hidden = !foundAt;
    $("own").title = foundAt ? `Each finding from its own threshold, fitted for ${foundAt}` : "";
    this.start = start;
  }

  // value: null for each finding's own threshold.
  setConfidence(value) {
    $("own").setAttribute("aria-pressed", value === null);
    slide("confidence", value ?? this.start);
    if (value === null) {
      $("confidence-value").textContent = "own thresholds";
      $("confidence").setAttribute("aria-valuetext", "each finding from its own threshold");
      return;
    }
    $("confidence-value").textContent = value.toFixed(2);
    $("confidence").setAttribute("aria-valuetext", `findings from a confidence of ${value.toFixed(2)}`);
  }

  // answer: of POST predict; null where there is none (yet).
  showAnswer(answer) {
    const said = answer?.image_check?.warnings ?? [];
    $("check-card").hidden = !said.length;
    $("check").replaceChildren(...said.map((text) => element("li", {}, text)));
    const normal = answer?.normal_probability ?? answer?.normal ?? null;
    $("normal-card").hidden = normal === null;
    if (normal !== null) {
      $("normal-value").textContent = normal.toFixed(2);
      $("normal").setAttribute("aria-valuenow", normal.toFixed(2));
      $("normal").firstElementChild.style.width = `${100 * normal}%`;
    }
    const labels = Object.entries({ ...answer?.labels, ...answer?.label_probabilities }).sort((a, b) => b[1] - a[1]);
    $("labels-card").hidden = !labels.length;
    const found = new Set(answer?.positive_labels);
    const pairs = labels.map(([name, value]) => {
      return [element("dt", {}, name), element("dd", {}, `${value.toFixed(2)}${found.has(name) ? " found" : ""}`)];
    });
    $("labels").replaceChildren(...pairs.flat());
  }

  // layers: [{category, name, colour, count, isOn}]; shown: findings to list, the surest first.
  showFindings(layers, shown, { hasAnswer, hasBoxes, spacing }) {
    $("layers").replaceChildren(...layers.map((layer) => this.chip(layer)));
    const focused = this.findingOf(document.activeElement);
    this.rows = new Map(shown.map((finding) => [finding, this.row(finding, spacing)]));
    this.body.replaceChildren(...this.rows.values());
    if (focused) this.rows.get(focused)?.querySelector("button").focus({ preventScroll: true });
    this.setTabStop(focused && this.rows.has(focused) ? focused : shown[0]);
    $("findings").hidden = !shown.length;
    $("count").textContent = hasAnswer && hasBoxes ? shown.length : "";
    $("nothing").hidden = shown.length > 0;
    if (!hasAnswer) $("nothing").textContent = "Findings appear here.";
    else if (!hasBoxes) $("nothing").textContent = "The models loaded judge whole radiographs and mark no places.";
    else if (layers.length) $("nothing").textContent = "All layers with a finding this sure are switched off.";
    else $("nothing").textContent = "No finding as sure as this. Fainter ones appear with a lower confidence.";
  }

  chip({ category, name, colour, count, isOn }) {
    const button = element("button", { type: "button", "aria-pressed": isOn, title: `Show or hide ${name}` },
      swatch(colour), element("span", {}, count > 1 ? `${name} ${count}` : name));
    button.addEventListener("click", () => {
      this.hooks.onLayer(category, !isOn);
      [...$("layers").querySelectorAll("button")].find((other) => other.title === button.title)?.focus();
    });
    return element("li", {}, button);
  }

  row(finding, spacing) {
    const { name, score, colour, box } = finding;
    const bar = element("span", { class: "bar", "aria-hidden": true }, element("span"));
    bar.firstElementChild.style.width = `${100 * score}%`;
    bar.firstElementChild.style.background = colour;
    const attributes = { type: "button", tabindex: -1, title: "Zoom to it" };
    const button = element("button", attributes, swatch(colour), element("span", {}, name));
    return element("tr", {},
      element("th", { scope: "row", class: "cell" }, button),
      element("td", { class: "number" }, bar, score.toFixed(2)),
      element("td", { class: "number" }, sizeOf(box, spacing)));
  }

  findingOf(target) {
    const row = target?.closest?.("tr");
    for (const [finding, own] of this.rows) if (own === row) return finding;
    return null;
  }

  // finding: or null.
  light(finding, { scrolls = false } = {}) {
    for (const [own, row] of this.rows) row.classList.toggle("lit", own === finding);
    if (finding && scrolls) this.rows.get(finding)?.scrollIntoView({ block: "nearest" });
  }

  // The table is one stop of the tab key; arrows go through its rows.
  setTabStop(finding) {
    for (const [own, row] of this.rows) row.querySelector("button").tabIndex = own === finding ? 0 : -1;
  }

  focus(finding) {
    this.setTabStop(finding);
    this.rows.get(finding)?.querySelector("button").focus();
  }

  walk(event) {
    const all = [...this.rows.keys()];
    const at = all.indexOf(this.findingOf(event.target));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (all[to]) this.focus(all[to]);
  }

  showWindow(radiograph, window) {
    for (const id of ["level", "width", "preset"]) $(id).disabled = !radiograph;
    if (!radiograph) {
      for (const id of ["level-value", "width-value"]) $(id).textContent = "–";
      return;
    }
    if (this.radiograph !== radiograph) {
      this.radiograph = radiograph;
      this.presets = radiograph.presets;
      $("preset").replaceChildren(...[...this.presets.keys(), "Own"].map((name) => element("option", {}, name)));
      const [low, high] = radiograph.range;
      const step = high - low > 20 ? 1 : (high - low) / 200 || 1;
      Object.assign($("level"), { min: low, max: high, step });
      Object.assign($("width"), { min: step, max: Math.max(2 * step, 1.5 * (high - low)), step });
    }
    const { center, width } = window ?? radiograph.ownWindow();
    this.shown = { center, width };
    slide("level", center);
    slide("width", width);
    $("level-value").textContent = written(center);
    $("width-value").textContent = written(width);
    const same = ([, preset]) => preset === window ||
      (preset && window && preset.center === center && preset.width === width);
    $("preset").value = [...this.presets].find(same)?.[0] ?? "Own";
  }

  readSliders(id) {
    const value = Number($(id).value);
    this.hooks.onWindow(id === "level" ? { ...this.shown, center: value } : { ...this.shown, width: value });
  }
}

// Also tells the style how much of the track to fill.
function slide(id, value) {
  const { min, max, style } = $(id);
  $(id).value = value;
  style.setProperty("--share", `${(100 * ($(id).value - min)) / (max - min)}%`);
}

export function written(value) {
  return Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(2) : String(Math.round(value));
}

// In millimetres where the distance of pixels is known, else in pixels.
function sizeOf([x1, y1, x2, y2], spacing) {
  if (!spacing) return `${Math.round(x2 - x1)} × ${Math.round(y2 - y1)} px`;
  return `${Math.round((x2 - x1) * spacing[1])} × ${Math.round((y2 - y1) * spacing[0])} mm`;
}

function swatch(colour) {
  const found = element("span", { class: "swatch", "aria-hidden": true });
  found.style.background = colour;
  return found;
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
