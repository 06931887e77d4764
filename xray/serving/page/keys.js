// What single keys do, wherever the focus is, as long as nothing is being typed there.

const KEYS = {
  "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", 0: "fit", 1: "full", i: "invert", r: "reset", w: "mode",
  b: "boxes", n: "tags", m: "masks", j: "next", k: "previous", "?": "help",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function handleKeys(actions, canvas) {
  addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.matches?.("select, textarea, input:not([type=range], [type=radio], [type=file])")) return;
    if (target === canvas && key in ARROWS) {
      event.preventDefault();
      const [x, y] = ARROWS[key];
      if (event.shiftKey) actions.window(y, x);
      else actions.pan(-x, -y);
    } else if (key === "[" || key === "]") {
      actions.confidence(key === "]" ? 0.05 : -0.05);
    } else if (key.toLowerCase() in KEYS) {
      actions[KEYS[key.toLowerCase()]]();
    }
  });
}
