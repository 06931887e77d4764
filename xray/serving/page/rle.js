// COCO's compressed run lengths → the outline of a mask.

// counts: five bits a character from "0" on, bit 6 for "goes on", from the fourth run on as the difference to the last
// run but one; runs of clear and set pixels in turn, down the columns. → [[first, end], …] of the set ones.
export function runs(counts) {
  const lengths = [];
  const found = [];
  let [at, position] = [0, 0];
  while (at < counts.length) {
    let [value, shift, code] = [0, 0, 0];
    do {
      code = counts.charCodeAt(at++) - 48;
      value += (code & 0x1f) * 2 ** shift;
      shift += 5;
    } while (code & 0x20 && at < counts.length);
    if (code & 0x10) value -= 2 ** shift;
    if (lengths.length > 2) value += lengths.at(-2);
    lengths.push(value);
    if (lengths.length % 2 === 0) found.push([position, position + value]);
    position += value;
  }
  return found;
}

// A COCO mask → {path}: the outline along the edges of its pixels, in original pixels.
export function outline({ size: [height, width], counts }) {
  const columns = Array.from({ length: width }, () => []);
  for (const [first, end] of runs(counts)) {
    // A run goes on at the top of the next column.
    for (let at = first; at < end; ) {
      const x = Math.floor(at / height);
      const stop = Math.min(end, (x + 1) * height);
      columns[x].push([at - x * height, stop - x * height]);
      at = stop;
    }
  }
  return { path: path(loops(columns, height)) };
}

// The edges between set and clear pixels, each with the mask on its right, chained into loops of [x, y].
function loops(columns, height) {
  const next = new Map();
  const key = (x, y) => x * (height + 1) + y;
  const add = (x1, y1, x2, y2) => {
    const from = key(x1, y1);
    const to = [x2, y2];
    if (next.has(from)) next.get(from).push(to);
    else next.set(from, [to]);
  };
  for (let x = 0; x <= columns.length; x++) {
    const here = columns[x] ?? [];
    const before = columns[x - 1] ?? [];
    for (const [top, bottom] of here) {
      add(x, top, x + 1, top);
      add(x + 1, bottom, x, bottom);
    }
    for (const [top, bottom] of without(here, before)) add(x, bottom, x, top);
    for (const [top, bottom] of without(before, here)) add(x, top, x, bottom);
  }
  const found = [];
  for (const [start, targets] of next) {
    while (targets.length) {
      const loop = [];
      for (let at = start; next.get(at)?.length; ) {
        const [x, y] = next.get(at).pop();
        loop.push([x, y]);
        at = key(x, y);
      }
      found.push(loop);
    }
  }
  return found;
}

// The parts of ascending intervals that others do not cover.
function without(intervals, others) {
  const rest = [];
  for (const [start, end] of intervals) {
    let from = start;
    for (const [top, bottom] of others) {
      if (bottom <= from || top >= end) continue;
      if (top > from) rest.push([from, top]);
      from = bottom;
    }
    if (from < end) rest.push([from, end]);
  }
  return rest;
}

function path(found) {
  const result = new Path2D();
  for (const loop of found) {
    loop.forEach(([x, y], index) => {
      const [x1, y1] = loop.at(index - 1);
      const [x2, y2] = loop[(index + 1) % loop.length];
      // In the middle of a straight piece.
      if (index && ((x1 === x && x === x2) || (y1 === y && y === y2))) return;
      if (index) result.lineTo(x, y);
      else result.moveTo(x, y);
    });
    result.closePath();
  }
  return result;
}
