// Masks: pixels that are inside (1) or outside (0), and COCO's run-length code for them. Nothing here needs a page.

// A mask is as fine as the canvas up to this side; larger canvases share pixels, which keeps every mask small.
export const LONGEST_SIDE = 1024;
// Pixels that are unpacked of one mask, and of all masks of a layout together; a short text could else fill the memory.
export const MOST_PIXELS = 2 ** 26;
const MOST_PIXELS_TOGETHER = 2 ** 28;
// Of a soft mask's own maximum: what is inside has at least so much. One that is nowhere above the other is empty. The
// server's `inside_of` in core/layout/masks.py has the same two.
const INSIDE = 0.5;
const FAINTEST = 1 / 16;

/** A mask's pixels: {width, height, data}, data row by row, 0 or 1. */
export const emptyPixels = (width, height) => ({ width, height, data: new Uint8Array(width * height) });

export function maskSize(width, height) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/** Lengths of alternating runs, outside first, column by column from the left. */
export function runsOf({ width, height, data }) {
  const runs = [];
  let inside = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (data[at] !== inside) {
        runs.push(length);
        length = 0;
        inside = 1 - inside;
      }
      length++;
    }
  }
  runs.push(length);
  return runs;
}

export function pixelsOfRuns(runs, width, height) {
  const pixels = emptyPixels(width, height);
  let at = 0;
  runs.forEach((length, index) => {
    if (!Number.isInteger(length) || length < 0 || at + length > width * height) {
      throw new Error("the runs of a mask do not fit its size");
    }
    if (index % 2) {
      for (let end = at + length, i = at; i < end; i++) pixels.data[(i % height) * width + Math.floor(i / height)] = 1;
    }
    at += length;
  });
  if (at !== width * height) throw new Error("the runs of a mask do not fill its size");
  return pixels;
}

/** COCO's text for runs: differences to the run before the last, five bits to a character. */
export function encodeRuns(runs) {
  let text = "";
  runs.forEach((run, index) => {
    let value = index > 2 ? run - runs[index - 2] : run;
    let more = true;
    while (more) {
      let bits = value & 31;
      value >>= 5;
      more = bits & 16 ? value !== -1 : value !== 0;
      if (more) bits |= 32;
      text += String.fromCharCode(bits + 48);
    }
  });
  return text;
}

export function decodeRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    let bits = 32;
    while (bits & 32) {
      bits = text.charCodeAt(at++) - 48;
      if (!(bits >= 0 && bits < 64) || shift > 30) throw new Error("the text of a mask is damaged");
      value |= (bits & 31) << shift;
      shift += 5;
    }
    if (bits & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

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

export const isSoft = (mask) => typeof mask?.float32_zlib_base64 === "string";

/** Unpacks a soft mask of another node, so that `readMask` can show it; true where there was one to unpack. */
export async function loadSoftMask(mask) {
  if (!isSoft(mask) || tried.has(mask) || refused.has(mask) || !isLegalSize(mask.width, mask.height)) return false;
  tried.add(mask);
  try {
    const pixels = emptyPixels(mask.width, mask.height);
    const values = new DataView(await inflate(mask.float32_zlib_base64, 4 * pixels.data.length));
    let highest = 0;
    for (let at = 0; at < pixels.data.length; at++) highest = Math.max(highest, values.getFloat32(4 * at, true));
    const least = highest < FAINTEST ? Infinity : INSIDE * highest;
    for (let at = 0; at < pixels.data.length; at++) pixels.data[at] = values.getFloat32(4 * at, true) >= least ? 1 : 0;
    decoded.set(mask, pixels);
    return true;
  } catch {
    return false; // damaged; the server says so before a run
  }
}

/** The bytes of a zlib stream in base64, which has to hold exactly `length` of them; a longer one is not read on. */
async function inflate(text, length) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const reader = unpacked.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > length) {
      await reader.cancel();
      throw new Error("the mask has more values than its size says");
    }
    bytes.set(value, at);
    at += value.length;
  }
  if (at !== length) throw new Error("the mask has fewer values than its size says");
  return bytes.buffer;
}

/** The JSON of a mask; null where nothing is inside. */
export function writeMask(pixels) {
  if (!pixels.data.includes(1)) return null;
  const mask = { size: [pixels.height, pixels.width], counts: encodeRuns(runsOf(pixels)) };
  decoded.set(mask, pixels);
  return mask;
}

export const copyPixels = ({ width, height, data }) => ({ width, height, data: data.slice() });

/** The box around what is inside, in 0..1, or null. */
export function boundsOf({ width, height, data }) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    const first = data.subarray(y * width, (y + 1) * width).indexOf(1);
    if (first < 0) continue;
    left = Math.min(left, first);
    right = Math.max(right, data.subarray(y * width, (y + 1) * width).lastIndexOf(1));
    top = Math.min(top, y);
    bottom = y;
  }
  return right < 0 ? null : [left / width, top / height, (right + 1) / width, (bottom + 1) / height];
}

/** Sets what lies within `radius` of a line (all in mask pixels); gives the rectangle that may have changed. */
export function paintLine({ width, height, data }, [x0, y0], [x1, y1], radius, value) {
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
  const right = Math.min(width, Math.ceil(Math.max(x0, x1) + radius) + 1);
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
  const bottom = Math.min(height, Math.ceil(Math.max(y0, y1) + radius) + 1);
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
      const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const [ex, ey] = [px - along * dx, py - along * dy];
      if (ex * ex + ey * ey <= radius * radius) data[y * width + x] = value;
    }
  }
  return [left, top, Math.max(left, right), Math.max(top, bottom)];
}

export function fillBox(pixels, [x0, y0, x1, y1]) {
  const { width, height, data } = pixels;
  for (let y = Math.max(0, Math.round(y0 * height)); y < Math.min(height, Math.round(y1 * height)); y++) {
    data.fill(1, y * width + Math.max(0, Math.round(x0 * width)), y * width + Math.min(width, Math.round(x1 * width)));
  }
  return pixels;
}

/** Fills a polygon x y x y ... in 0..1: the pixels whose centres it surrounds an odd number of times. */
export function fillPolygon(pixels, corners) {
  const { width, height, data } = pixels;
  const count = Math.floor(corners.length / 2);
  for (let row = 0; row < height; row++) {
    const y = (row + 0.5) / height;
    const crossings = [];
    for (let i = 0; i < count; i++) {
      const j = (i + 1) % count;
      const [xa, ya, xb, yb] = [corners[2 * i], corners[2 * i + 1], corners[2 * j], corners[2 * j + 1]];
      if (ya <= y !== yb <= y) crossings.push((xa + ((y - ya) / (yb - ya)) * (xb - xa)) * width);
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.min(width, Math.max(0, Math.ceil(crossings[i] - 0.5)));
      const to = Math.min(width, Math.max(from, Math.ceil(crossings[i + 1] - 0.5)));
      data.fill(1, row * width + from, row * width + to);
    }
  }
  return pixels;
}

export function fillEllipse(pixels, [x0, y0, x1, y1]) {
  const { width, height, data } = pixels;
  for (let at = 0; at < data.length; at++) {
    const across = (2 * (((at % width) + 0.5) / width) - x0 - x1) / (x1 - x0);
    const down = (2 * ((Math.floor(at / width) + 0.5) / height) - y0 - y1) / (y1 - y0);
    if (across * across + down * down <= 1) data[at] = 1;
  }
  return pixels;
}

/** Moves and stretches what is inside so that the box `from` lands on the box `to`, onto a grid of any size. */
export function warpPixels(pixels, from, to, width = pixels.width, height = pixels.height) {
  const warped = emptyPixels(width, height);
  const source = (target, size, sourceSize, [t0, t1], [f0, f1]) => {
    const share = f0 + (((target + 0.5) / size - t0) / (t1 - t0)) * (f1 - f0);
    // A hair towards the inside, so that a move by whole pixels takes whole pixels.
    const at = Math.floor(share * sourceSize + 1e-6);
    return at >= 0 && at < sourceSize ? at : -1;
  };
  const columns = Array.from({ length: width }, (_, x) =>
    source(x, width, pixels.width, [to[0], to[2]], [from[0], from[2]]),
  );
  for (let y = 0; y < height; y++) {
    const row = source(y, height, pixels.height, [to[1], to[3]], [from[1], from[3]]);
    if (row < 0) continue;
    for (let x = 0; x < width; x++) {
      if (columns[x] >= 0) warped.data[y * width + x] = pixels.data[row * pixels.width + columns[x]];
    }
  }
  return warped;
}
