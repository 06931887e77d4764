// Mouse, pen and fingers on the viewer: drag, pinch, wheel, and what is under them.

// Returns {setMode}: "move", or "window" in which dragging changes window and level.
export function handlePointers(viewer) {
  const { canvas, hooks } = viewer;
  const pointers = new Map();
  let mode = "move";
  let drag = null;

  const place = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: (event.clientX - left) * viewer.unit, y: (event.clientY - top) * viewer.unit };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    const isWindow = event.button === 2 || (mode === "window" && event.button === 0);
    drag = { kind: isWindow ? "window" : "move", start: place(event), hasMoved: false };
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      hooks.onHover(viewer.findingAt(now));
      hooks.onProbe(viewer.probe(now));
      return;
    }
    if (pointers.size === 2) {
      pinch(event.pointerId, now);
    } else if (drag) {
      const [dx, dy] = [now.x - before.x, now.y - before.y];
      drag.hasMoved ||= Math.hypot(now.x - drag.start.x, now.y - drag.start.y) > 3 * viewer.unit;
      if (drag.kind === "window") {
        // Up is brighter, right is softer.
        viewer.changeWindow(dy * 0.0025 / viewer.unit, dx * 0.005 / viewer.unit);
      } else if (drag.hasMoved) {
        viewer.panBy(dx, dy);
        canvas.classList.add("moving");
      }
      hooks.onProbe(viewer.probe(now));
    }
    pointers.set(event.pointerId, now);
  });

  function pinch(id, now) {
    const before = pointers.get(id);
    const [, other] = [...pointers].find(([key]) => key !== id);
    const distance = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
    const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
    viewer.panBy((now.x - before.x) / 2, (now.y - before.y) / 2);
    viewer.zoomBy(distance(now, other) / distance(before, other), middle);
    drag = { kind: "move", start: now, hasMoved: true };
  }

  const release = (event) => {
    const isClick = drag && !drag.hasMoved && pointers.size === 1 && event.type === "pointerup" && event.button === 0;
    pointers.delete(event.pointerId);
    if (!pointers.size) {
      drag = null;
      canvas.classList.remove("moving");
    }
    if (isClick) hooks.onPick(viewer.findingAt(place(event)));
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => {
    hooks.onHover(null);
    hooks.onProbe(null);
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => viewer.isFitted ? viewer.full() : viewer.fit());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    // Two fingers on a touchpad come as small steps with the control key.
    const speed = event.ctrlKey ? 0.01 : 0.0016;
    viewer.zoomBy(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) * speed), place(event));
  }, { passive: false });

  return {
    setMode(next) {
      mode = next;
      canvas.classList.toggle("window", mode === "window");
    },
  };
}
