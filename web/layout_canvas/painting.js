// Changes the pixels of masks: the brush, filled shapes, and moving and stretching. Nothing here needs a page.

import { emptyPixels, FULL } from "./pixels.js";

/** What a brush leaves at a distance from its middle: full within its hard part, from there on less, to its edge. */
function strengthAt(distance, radius, softness) {
  const hard = radius * (1 - softness);
  if (distance <= hard) return FULL;
  const far = (distance - hard) / (radius - hard);
  return far >= 1 ? 0 : Math.round(FULL * (1 - far * far * (3 - 2 * far)));
}

/**
 * Adds to or takes from what lies within `radius` of a line (all in mask pixels).
 *
 * @param softness share of the radius along which the brush fades; a stroke over itself does not grow stronger
 * @returns the rectangle that may have changed
 */
export function paintLine({ width, height, data }, [x0, y0], [x1, y1], radius, adds, softness = 0) {
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
      const square = ex * ex + ey * ey;
      if (square > radius * radius) continue;
      const strength = softness > 0 ? strengthAt(Math.sqrt(square), radius, softness) : FULL;
      const i = y * width + x;
      data[i] = adds ? Math.max(data[i], strength) : Math.min(data[i], FULL - strength);
    }
  }
  return [left, top, Math.max(left, right), Math.max(top, bottom)];
}

export function fillBox(pixels, [x0, y0, x1, y1]) {
  const { width, height, data } = pixels;
  for (let y = Math.max(0, Math.round(y0 * height)); y < Math.min(height, Math.round(y1 * height)); y++) {
    data.fill(FULL, y * width + Math.max(0, Math.round(x0 * width)), y * width + Math.min(width, Math.round(x1 * width)));
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
      data.fill(FULL, row * width + from, row * width + to);
    }
  }
  return pixels;
}

export function fillEllipse(pixels, [x0, y0, x1, y1]) {
  const { width, height, data } = pixels;
  for (let at = 0; at < data.length; at++) {
    const across = (2 * (((at % width) + 0.5) / width) - x0 - x1) / (x1 - x0);
    const down = (2 * ((Math.floor(at / width) + 0.5) / height) - y0 - y1) / (y1 - y0);
    if (across * across + down * down <= 1) data[at] = FULL;
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
