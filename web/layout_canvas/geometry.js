// Boxes, handles, snapping and the view. A box is [x0, y0, x1, y1]; which unit is said where it matters.

// One latent cell covers this many pixels of the canvas in every model that the nodes support.
export const CELL = 8;
export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const toPixels = ([x0, y0, x1, y1], width, height) => [x0 * width, y0 * height, x1 * width, y1 * height];
const rounded = (value) => Math.round(clamp(value, 0, 1) * 1e6) / 1e6;
export const toShares = ([x0, y0, x1, y1], width, height) =>
  [x0 / width, y0 / height, x1 / width, y1 / height].map(rounded);

export const contains = ([x0, y0, x1, y1], [x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1;

/** The box between two corners in any order. */
export const boxBetween = ([xa, ya], [xb, yb]) => [
  Math.min(xa, xb),
  Math.min(ya, yb),
  Math.max(xa, xb),
  Math.max(ya, yb),
];

export function handlePoint([x0, y0, x1, y1], handle) {
  const x = handle.includes("w") ? x0 : handle.includes("e") ? x1 : (x0 + x1) / 2;
  const y = handle.includes("n") ? y0 : handle.includes("s") ? y1 : (y0 + y1) / 2;
  return [x, y];
}

/** The handle within reach of a point, corners before edges, or null. */
export function handleAt(box, [x, y], reach) {
  const near = HANDLES.filter((handle) => {
    const [hx, hy] = handlePoint(box, handle);
    return Math.abs(hx - x) <= reach && Math.abs(hy - y) <= reach;
  });
  return near.find((handle) => handle.length === 2) ?? near[0] ?? null;
}

export const cursorOf = (handle) =>
  ({ nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew" })[handle] + "-resize";

/** Moves a box without letting it leave the canvas (pixels). */
export function moveBox([x0, y0, x1, y1], dx, dy, width, height) {
  const right = clamp(dx, -x0, width - x1);
  const down = clamp(dy, -y0, height - y1);
  return [x0 + right, y0 + down, x1 + right, y1 + down];
}

/** Drags one handle of a box by (dx, dy) pixels; the edges keep their names, so they may be the wrong way round. */
export function resizeBox([x0, y0, x1, y1], handle, dx, dy, width, height) {
  if (handle.includes("w")) x0 = clamp(x0 + dx, 0, width);
  if (handle.includes("e")) x1 = clamp(x1 + dx, 0, width);
  if (handle.includes("n")) y0 = clamp(y0 + dy, 0, height);
  if (handle.includes("s")) y1 = clamp(y1 + dy, 0, height);
  return [x0, y0, x1, y1];
}

/** Sorts the edges that a handle has pulled and keeps them `least` pixels from those opposite, which stay. */
export function closeBox([x0, y0, x1, y1], handle, least, width, height) {
  const close = (low, high, limit, pullsLow, pullsHigh) => {
    if (!pullsLow && !pullsHigh) return [low, high];
    let [fixed, pulled] = pullsLow ? [high, low] : [low, high];
    const size = Math.max(Math.abs(pulled - fixed), Math.min(least, limit));
    const isBelow = pulled === fixed ? pullsLow : pulled < fixed;
    pulled = isBelow ? fixed - size : fixed + size;
    if (pulled < 0) pulled = fixed + size;
    else if (pulled > limit) pulled = fixed - size;
    return [Math.min(fixed, pulled), Math.max(fixed, pulled)];
  };
  const [left, right] = close(x0, x1, width, handle.includes("w"), handle.includes("e"));
  const [top, bottom] = close(y0, y1, height, handle.includes("n"), handle.includes("s"));
  // Where neither side has room for it, as on a tiny canvas.
  return withLeastSize([left, top, right, bottom], 0, width, height);
}

/** Makes both sides at least `least` pixels (or the whole canvas, where that is smaller), staying on the canvas. */
export function withLeastSize([x0, y0, x1, y1], least, width, height) {
  const grow = (low, high, limit) => {
    const size = Math.max(high - low, Math.min(least, limit));
    const start = clamp(low, 0, limit - size);
    return [start, start + size];
  };
  const [left, right] = grow(x0, x1, width);
  const [top, bottom] = grow(y0, y1, height);
  return [left, top, right, bottom];
}

/** Lines that edges are drawn to: the canvas, its middle, and the edges and middles of other boxes (pixels). */
export function snapLines(boxes, width, height) {
  const lines = { x: [0, width / 2, width], y: [0, height / 2, height] };
  for (const [x0, y0, x1, y1] of boxes) {
    lines.x.push(x0, x1, (x0 + x1) / 2);
    lines.y.push(y0, y1, (y0 + y1) / 2);
  }
  return lines;
}

function nearestLine(values, lines, reach) {
  let best = null;
  for (const line of lines) {
    for (const value of values) {
      const shift = line - value;
      if (Math.abs(shift) <= reach && (!best || Math.abs(shift) < Math.abs(best.shift))) best = { shift, line };
    }
  }
  return best;
}

/** How far to shift along one axis so that one of `values` lies on a line or, failing that, the first on the grid. */
function snapAxis(values, lines, reach) {
  const found = nearestLine(values, lines, reach);
  if (found) return found;
  return { shift: Math.round(values[0] / CELL) * CELL - values[0], line: null };
}

/** Snaps a box that moves: {box, guides: {x, y}} with the lines that it met, or null for the grid. */
export function snapMove(box, lines, reach, width, height) {
  const [x0, y0, x1, y1] = box;
  const x = snapAxis([x0, x1, (x0 + x1) / 2], lines.x, reach);
  const y = snapAxis([y0, y1, (y0 + y1) / 2], lines.y, reach);
  return { box: moveBox(box, x.shift, y.shift, width, height), guides: { x: x.line, y: y.line } };
}

/** Snaps the edges that a handle moves. */
export function snapResize(box, handle, lines, reach, width, height) {
  const snapped = [...box];
  const guides = { x: null, y: null };
  const edges = [
    ["w", 0, "x"],
    ["n", 1, "y"],
    ["e", 2, "x"],
    ["s", 3, "y"],
  ];
  for (const [side, index, axis] of edges) {
    if (!handle.includes(side)) continue;
    const { shift, line } = snapAxis([box[index]], lines[axis], reach);
    snapped[index] = clamp(box[index] + shift, 0, axis === "x" ? width : height);
    guides[axis] = line;
  }
  return { box: snapped, guides };
}

export function snapPoint([x, y], lines, reach, width, height) {
  const [sx, sy] = [snapAxis([x], lines.x, reach), snapAxis([y], lines.y, reach)];
  return [clamp(x + sx.shift, 0, width), clamp(y + sy.shift, 0, height)];
}

/** Which handle a keyboard resize pulls: the right and lower edge. */
export const keyHandle = (dx) => (dx ? "e" : "s");

/** The view that shows the whole canvas: {scale, x, y}, screen = canvas * scale + (x, y). */
export function fitView(width, height, viewWidth, viewHeight, margin = 14) {
  const scale = Math.max(1e-4, Math.min((viewWidth - 2 * margin) / width, (viewHeight - 2 * margin) / height));
  return { scale, x: (viewWidth - width * scale) / 2, y: (viewHeight - height * scale) / 2 };
}

/** Zooms about a point of the screen. */
export function zoomView(view, factor, [x, y], least) {
  const scale = clamp(view.scale * factor, least, 64);
  const ratio = scale / view.scale;
  return { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
}

/** Distance of the lines of the shown grid: whole cells, never closer than `least` on the screen. */
export function gridStep(scale, least = 7) {
  let step = CELL;
  while (step * scale < least) step *= 2;
  return step;
}
