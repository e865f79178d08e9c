// The pictures of masks: their colour, the fainter the softer, with a rim along the edge.

import { FULL, levelOf, LONGEST_SIDE } from "./pixels.js";

const bitmaps = new WeakMap(); // pixels -> {tint, canvas, context, level}
const INSIDE = 84; // opacity of a mask where it is full, of 255
const RIM = 2; // pixels of its picture of full colour along a mask's edge

/** Red, green and blue of #rrggbb, 0 to 255. */
export const channels = (tint) => [1, 3, 5].map((at) => parseInt(tint.slice(at, at + 2), 16));

/** The picture of a mask in a colour; `changed` is the rectangle of pixels that a stroke has touched since. */
export function maskBitmap(pixels, tint, changed = null) {
  let bitmap = bitmaps.get(pixels);
  if (!bitmap || bitmap.tint !== tint) {
    const canvas = document.createElement("canvas");
    const step = stepOf(pixels);
    canvas.width = Math.ceil(pixels.width / step);
    canvas.height = Math.ceil(pixels.height / step);
    // What counts as inside for the rim; a stroke that begins has no inside yet.
    const level = Math.min(levelOf(pixels), FULL / 2);
    bitmap = { tint, canvas, context: canvas.getContext("2d"), level };
    bitmaps.set(pixels, bitmap);
    changed = [0, 0, pixels.width, pixels.height];
  }
  if (changed) paintPixels(bitmap, pixels, changed);
  return bitmap.canvas;
}

/** Every so many pixels of a mask are one of its picture, which needs no more than the editor's own masks have. */
const stepOf = ({ width, height }) => Math.ceil(Math.max(width, height) / LONGEST_SIDE);

function paintPixels({ context, tint, level }, pixels, [x0, y0, x1, y1]) {
  const { width, data } = pixels;
  const step = stepOf(pixels);
  const { width: wide, height: tall } = context.canvas;
  const [left, top] = [x0, y0].map((value) => Math.max(0, Math.floor(value / step) - RIM));
  const [right, bottom] = [Math.min(wide, Math.ceil(x1 / step) + RIM), Math.min(tall, Math.ceil(y1 / step) + RIM)];
  if (right <= left || bottom <= top) return;
  const image = context.createImageData(right - left, bottom - top);
  const [red, green, blue] = channels(tint);
  const valueAt = (x, y) => data[y * step * width + x * step];
  // How steeply a mask falls towards a pixel that is outside: a hard edge gets a rim, a soft one hardly any.
  const fall = (value, x, y) => {
    if (x < 0 || y < 0 || x >= wide || y >= tall) return 0;
    const other = valueAt(x, y);
    return other < level ? value - other : 0;
  };
  for (let y = top, at = 0; y < bottom; y++) {
    for (let x = left; x < right; x++, at += 4) {
      const value = valueAt(x, y);
      if (!value) continue;
      const rim =
        value < level
          ? 0
          : Math.max(fall(value, x - RIM, y), fall(value, x + RIM, y), fall(value, x, y - RIM), fall(value, x, y + RIM));
      image.data[at] = red;
      image.data[at + 1] = green;
      image.data[at + 2] = blue;
      image.data[at + 3] = (INSIDE * value) / FULL + ((255 - INSIDE) * rim) / FULL;
    }
  }
  context.putImageData(image, left, top);
}
