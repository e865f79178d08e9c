// Masks as a layout's JSON holds them, to pixels and back: COCO's runs where they are hard, packed greys where they are
// soft, and outlines.

import { fillEllipse, fillPolygon } from "./painting.js";
import { emptyPixels, FULL, isHard, levelOf, maskSize } from "./pixels.js";
import { decodeRuns, encodeRuns, pixelsOfRuns, runsOf } from "./runs.js";
import { pack, toBase64, unpack } from "./zlib.js";

// Pixels that are unpacked of one mask, and of all masks of a layout together; a short text could else fill the memory.
export const MOST_PIXELS = 2 ** 26;
const MOST_PIXELS_TOGETHER = 2 ** 28;
// Where a soft mask's text stands: 256 greys, which is what the brush paints, or the finer values of other nodes.
const [LEVELS, FLOATS] = ["uint8_zlib_base64", "float32_zlib_base64"];

const decoded = new WeakMap(); // mask -> its pixels, or null where they cannot be read
const tried = new WeakSet(); // soft masks that have been or are being unpacked
const refused = new WeakSet(); // masks that would be too much together with others

/** Lets go of a mask's pixels, as for one that only an undo can bring back; they are read again when it does. */
export function forgetMask(mask) {
  if (!mask || typeof mask !== "object") return;
  decoded.delete(mask);
  tried.delete(mask);
}

/** Whether somebody can unpack so many pixels. */
export const isLegalSize = (width, height) =>
  Number.isInteger(width) && Number.isInteger(height) && Math.min(width, height) > 0 && width * height <= MOST_PIXELS;

/** Refuses those of a layout's masks, in their order, that pass the limit for all; their boxes are drawn instead. */
export function limitMasks(masks) {
  let total = 0;
  for (const mask of masks) {
    if (!mask || typeof mask !== "object") continue;
    const [height, width] = Array.isArray(mask.size) ? mask.size : [mask.height, mask.width];
    const count = isLegalSize(width, height) ? width * height : 0; // outlines are drawn on the editor's own small grid
    if (total + count > MOST_PIXELS_TOGETHER) {
      refused.add(mask);
      forgetMask(mask);
    } else {
      refused.delete(mask);
      total += count;
    }
  }
}

/** The pixels of a mask as a layout's JSON holds it, or null where this editor cannot draw that kind. */
export function readMask(mask, canvasWidth, canvasHeight) {
  if (!mask || typeof mask !== "object" || refused.has(mask)) return null;
  if (!decoded.has(mask)) decoded.set(mask, decodeMask(mask, canvasWidth, canvasHeight));
  return decoded.get(mask);
}

function decodeMask(mask, canvasWidth, canvasHeight) {
  try {
    if (Array.isArray(mask.size)) {
      const [height, width] = mask.size;
      if (!isLegalSize(width, height)) return null;
      return pixelsOfRuns(Array.isArray(mask.counts) ? mask.counts : decodeRuns(mask.counts), width, height);
    }
    const size = maskSize(canvasWidth, canvasHeight);
    const pixels = emptyPixels(size.width, size.height);
    if (Array.isArray(mask.polygon)) return fillPolygon(pixels, mask.polygon);
    if (Array.isArray(mask.polygons)) return mask.polygons.reduce(fillPolygon, pixels);
    if (Array.isArray(mask.ellipse)) return fillEllipse(pixels, mask.ellipse);
  } catch {
    // The server names what is wrong with it before a run; here it is only not drawn.
  }
  return null;
}

export const isSoft = (mask) => [LEVELS, FLOATS].some((name) => typeof mask?.[name] === "string");

/** Unpacks a soft mask, so that `readMask` can show it; true where there was one to unpack. */
export async function loadSoftMask(mask) {
  if (!isSoft(mask) || tried.has(mask) || refused.has(mask) || !isLegalSize(mask.width, mask.height)) return false;
  if (decoded.get(mask)) return false; // it was written here
  tried.add(mask);
  try {
    decoded.set(mask, { width: mask.width, height: mask.height, data: await greysOf(mask) });
    return true;
  } catch {
    return false; // damaged; the server says so before a run
  }
}

/** Its greys; finer values are rounded for the screen, and the text stays what it is until somebody changes them. */
async function greysOf(mask) {
  const count = mask.width * mask.height;
  if (typeof mask[LEVELS] === "string") return unpack(mask[LEVELS], count);
  const values = new DataView((await unpack(mask[FLOATS], 4 * count)).buffer);
  return Uint8Array.from({ length: count }, (_, at) =>
    Math.round(FULL * Math.min(1, Math.max(0, values.getFloat32(4 * at, true)))),
  );
}

/** The JSON of a mask, which keeps every grey; null where nothing is inside. */
export function writeMask(pixels) {
  if (levelOf(pixels) === Infinity) return null;
  const { width, height, data } = pixels;
  const mask = isHard(pixels)
    ? { size: [height, width], counts: encodeRuns(runsOf(pixels)) }
    : { height, width, [LEVELS]: toBase64(pack(data)) };
  decoded.set(mask, pixels);
  return mask;
}
