// What lies at a point of the canvas: the handles of the selected region, and the regions.

import { contains, handleAt } from "./geometry.js";
import { readMask } from "./masks.js";
import { levelOf } from "./pixels.js";
import { boxOf } from "./state.js";

/** The handle of the selected region within reach of a point (pixels of the canvas), or null. */
export function handleOf(editor, point, reach) {
  const { region, tool } = editor;
  if (!region || region.hidden || region.locked || tool !== "select") return null;
  const box = editor.pixelBox(region);
  return box && handleAt(box, point, reach);
}

/** The nearest region at a point; `below` names one to look behind. */
export function regionAt(editor, point, below = null) {
  const { width, height, regions } = editor.layout;
  const share = [point[0] / width, point[1] / height];
  const hit = regions
    .filter((region) => !region.hidden && !region.locked && isInside(editor, region, point, share))
    .reverse();
  const at = hit.findIndex((region) => region.key === below);
  return hit[(at + 1) % hit.length] ?? null;
}

function isInside(editor, region, point, share) {
  const { layout } = editor;
  const pixels = readMask(region.mask, layout.width, layout.height);
  if (pixels) {
    const [x, y] = [Math.floor(share[0] * pixels.width), Math.floor(share[1] * pixels.height)];
    if (x < 0 || y < 0 || x >= pixels.width || y >= pixels.height) return false;
    const isSelected = region.key === editor.selected;
    return (
      pixels.data[y * pixels.width + x] >= levelIn(pixels) || (isSelected && contains(boxOf(region, layout), share))
    );
  }
  const box = editor.pixelBox(region);
  return box !== null && contains(box, point);
}

const levels = new WeakMap(); // pixels that nobody paints on any more -> the least grey that is inside

function levelIn(pixels) {
  if (!levels.has(pixels)) levels.set(pixels, levelOf(pixels));
  return levels.get(pixels);
}
