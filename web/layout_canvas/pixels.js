// The pixels of a mask: grey values from 0, outside, to 255, inside; between them it is soft. Nothing here needs a page.

export const FULL = 255;
// A mask is as fine as the canvas up to this side; larger canvases share pixels, which keeps every mask small.
export const LONGEST_SIDE = 1024;
// Of a mask's own maximum: what is inside has at least so much. One that is nowhere above the other is empty. The
// server's `inside_of` in core/layout/masks.py has the same two.
const INSIDE = 0.5;
const FAINTEST = FULL / 16;

/** {width, height, data}, data row by row. */
export const emptyPixels = (width, height) => ({ width, height, data: new Uint8Array(width * height) });

export const copyPixels = ({ width, height, data }) => ({ width, height, data: data.slice() });

export function maskSize(width, height) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/** The least grey that is inside of a mask; Infinity where nothing is. */
export function levelOf({ data }) {
  let highest = 0;
  for (let at = 0; at < data.length && highest < FULL; at++) if (data[at] > highest) highest = data[at];
  return highest < FAINTEST ? Infinity : INSIDE * highest;
}

/** Whether every pixel is either inside or outside. */
export const isHard = ({ data }) => data.every((value) => value === 0 || value === FULL);

/** The box around what is inside, in 0..1, or null. */
export function boundsOf(pixels) {
  const { width, height, data } = pixels;
  const level = levelOf(pixels);
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0, row = 0; y < height; y++, row += width) {
    let first = 0;
    while (first < width && data[row + first] < level) first++;
    if (first === width) continue;
    let last = width - 1;
    while (data[row + last] < level) last--;
    left = Math.min(left, first);
    right = Math.max(right, last);
    top = Math.min(top, y);
    bottom = y;
  }
  return right < 0 ? null : [left / width, top / height, (right + 1) / width, (bottom + 1) / height];
}
