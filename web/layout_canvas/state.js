// The layout as the editor holds it, and the one text that carries it. States never change; edits make new ones.

import { mark, t } from "./languages.js";
import { readMask, writeMask } from "./masks.js";
import { warpPixels } from "./painting.js";
import { boundsOf, maskSize } from "./pixels.js";

export const SMALLEST_SIDE = 16;
export const LARGEST_SIDE = 16384;
export const MOST_REGIONS = 64;
// The colours of the score node and the preview, so that the same thing has the same colour everywhere.
export const COLOURS = ["#ff6347", "#40a0ff", "#ffd43b", "#50dc64", "#d678ff", "#40e0d0", "#ff9628"];

/** A text that is no layout; the message says what was found and what was expected. */
export class LayoutTextError extends Error {}

let lastKey = 0;
const newKey = () => ++lastKey;
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const emptyLayout = (width = 512, height = 512) => ({
  width,
  height,
  prompt: "",
  background: "",
  regions: [],
  editor: {},
  rest: {},
});

/** Reads the text of the widget; an empty one is an empty canvas. */
export function parseLayout(text) {
  if (!String(text ?? "").trim()) return emptyLayout();
  let data;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new LayoutTextError(t("This is not valid JSON: {error}", { error: error.message }));
  }
  if (Array.isArray(data)) data = { regions: data };
  if (!isObject(data)) throw new LayoutTextError(t("This is JSON, but not a layout: expected an object with regions."));
  return layoutOf(data);
}

/** Makes a layout of JSON values. */
export function layoutOf(data) {
  const { width = 512, height = 512, prompt = "", background = "", regions = [], editor = {}, ...rest } = data;
  for (const [name, side] of [
    ["width", width],
    ["height", height],
  ]) {
    if (!Number.isInteger(side) || side < 1) {
      throw new LayoutTextError(
        t("The {name} is {found}; expected whole pixels from 16 to 16384.", { name, found: shown(side) }),
      );
    }
  }
  for (const [name, words] of [
    ["prompt", prompt],
    ["background", background],
  ]) {
    if (typeof words !== "string")
      throw new LayoutTextError(t("The {name} is {found}; expected text.", { name, found: shown(words) }));
  }
  if (!Array.isArray(regions))
    throw new LayoutTextError(t("The regions are {found}; expected a list.", { found: shown(regions) }));
  const read = regions.map((region, index) => readRegion(region, index));
  // Farthest first from here on: the place in the list is the order. The sort keeps equal orders as they stand.
  read.sort((a, b) => a.order - b.order);
  return {
    width,
    height,
    prompt,
    background,
    regions: read.map(withoutOrder),
    editor: isObject(editor) ? editor : {},
    rest,
  };
}

function withoutOrder({ order, ...region }) {
  return region;
}

const shown = (value) => {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 40 ? `${text.slice(0, 37)}...` : text;
};

function readRegion(data, index) {
  const wrong = (text, value, key) => new LayoutTextError(t(text, { region: index + 1, found: shown(value), key }));
  if (!isObject(data)) throw wrong(mark("Region {region} is {found}; expected an object with a phrase and a box."), data);
  const { box, mask, hidden = false, order = 0, editor = {}, color, ...others } = data;
  const { phrase = "", prompt = "", strength = 1, reference = "", colour = color ?? "", ...rest } = others;
  for (const [key, words] of Object.entries({ phrase, prompt, reference, colour })) {
    if (typeof words !== "string") throw wrong(mark("Region {region} has the {key} {found}; expected text."), words, key);
  }
  if (!isNumber(strength))
    throw wrong(mark("Region {region} has the strength {found}; expected a number."), strength);
  if (!isNumber(order)) throw wrong(mark("Region {region} has the order {found}; expected a whole number."), order);
  if (box != null && !(Array.isArray(box) && box.length === 4 && box.every(isNumber))) {
    throw wrong(mark("Region {region} has the box {found}; expected four numbers x0 y0 x1 y1 in 0..1."), box);
  }
  const own = isObject(editor) ? editor : {};
  const { locked = false, colour: tint, ...kept } = own;
  return {
    key: newKey(),
    phrase,
    prompt,
    strength,
    reference,
    colour,
    order,
    box: box ?? null,
    mask: mask ?? null,
    hidden: hidden === true,
    locked: locked === true,
    tint: isTint(tint) ? tint : COLOURS[index % COLOURS.length],
    kept,
    rest,
  };
}

const isTint = (value) => typeof value === "string" && /^#[0-9a-f]{6}$/i.test(value);

/** The text of a layout; `parseLayout` gives back an equal layout. */
export function writeLayout(layout) {
  return JSON.stringify(toData(layout));
}

export function toData({ width, height, prompt, background, regions, editor, rest }) {
  const data = { width, height, prompt, background, regions: regions.map(regionData), ...rest };
  return Object.keys(editor).length ? { ...data, editor } : data;
}

function regionData(region, order) {
  const data = { phrase: region.phrase };
  if (region.box) data.box = region.box;
  if (region.mask) data.mask = region.mask;
  Object.assign(data, { prompt: region.prompt, strength: region.strength, order });
  if (region.colour) data.colour = region.colour;
  if (region.reference) data.reference = region.reference;
  if (region.hidden) data.hidden = true;
  const editor = { ...region.kept, colour: region.tint, ...(region.locked ? { locked: true } : {}) };
  return { ...data, ...region.rest, editor };
}

const bounds = new WeakMap(); // mask -> the box around it

/** Where a region lies, in 0..1: its box, or the box around its mask, or null where it has no place of its own. */
export function boxOf(region, layout) {
  if (region.box || !region.mask || typeof region.mask !== "object") return region.box;
  if (!bounds.has(region.mask)) {
    const pixels = readMask(region.mask, layout.width, layout.height);
    if (!pixels) return null;
    bounds.set(region.mask, boundsOf(pixels));
  }
  return bounds.get(region.mask);
}

export const findRegion = (layout, key) => layout.regions.find((region) => region.key === key) ?? null;

export function nextTint(layout) {
  const uses = (tint) => layout.regions.filter((region) => region.tint === tint).length;
  return COLOURS.reduce((best, tint) => (uses(tint) < uses(best) ? tint : best));
}

/** Puts a new region in front of all others; gives [layout, its key]. */
export function addRegion(layout, place) {
  const region = {
    key: newKey(),
    phrase: "",
    prompt: "",
    strength: 1,
    reference: "",
    colour: "",
    box: null,
    mask: null,
    hidden: false,
    locked: false,
    tint: nextTint(layout),
    kept: {},
    rest: {},
    ...place,
  };
  return [{ ...layout, regions: [...layout.regions, region] }, region.key];
}

export const updateRegion = (layout, key, change) => ({
  ...layout,
  regions: layout.regions.map((region) => (region.key === key ? { ...region, ...change } : region)),
});

export const removeRegion = (layout, key) => ({
  ...layout,
  regions: layout.regions.filter((region) => region.key !== key),
});

/** Puts a copy right in front of a region, one cell to the right and down where there is room; [layout, key]. */
export function duplicateRegion(layout, key, cell = 8) {
  const index = layout.regions.findIndex((region) => region.key === key);
  if (index < 0) return [layout, null];
  const original = layout.regions[index];
  const copy = { ...original, key: newKey(), locked: false, tint: nextTint(layout) };
  const box = boxOf(original, layout);
  if (box) {
    const right = Math.min((2 * cell) / layout.width, 1 - box[2]);
    const down = Math.min((2 * cell) / layout.height, 1 - box[3]);
    const place = [box[0] + right, box[1] + down, box[2] + right, box[3] + down];
    Object.assign(copy, settle({ ...copy, box: place, warp: copy.mask ? { from: box, to: place } : null }, layout));
  }
  const regions = [...layout.regions];
  regions.splice(index + 1, 0, copy);
  return [{ ...layout, regions }, copy.key];
}

/** Moves a region to a place in the painter's order: 0 is the farthest. */
export function reorderRegion(layout, key, index) {
  const region = findRegion(layout, key);
  if (!region) return layout;
  const regions = layout.regions.filter((other) => other !== region);
  regions.splice(Math.max(0, Math.min(index, regions.length)), 0, region);
  return { ...layout, regions };
}

/** Carries out the move of a mask that a gesture has only shown so far. */
export function settle({ warp, ...region }, layout) {
  if (!warp) return region;
  const pixels = readMask(region.mask, layout.width, layout.height);
  const warped = pixels && warpPixels(pixels, warp.from, warp.to);
  const mask = warped && writeMask(warped);
  // A mask that is not readable, is nowhere inside, or too thin for its new size stays where and what it was.
  if (!mask) return { ...region, box: warp.from };
  return { ...region, mask, box: boundsOf(warped) };
}

/** Changes the canvas. Boxes are shares of it, so they stretch along; masks take the new shape with them. */
export function resizeCanvas(layout, width, height) {
  const whole = [0, 0, 1, 1];
  const size = maskSize(width, height);
  const regions = layout.regions.map((region) => {
    const pixels = readMask(region.mask, layout.width, layout.height);
    if (!pixels) return region;
    const mask = writeMask(warpPixels(pixels, whole, whole, size.width, size.height)) ?? region.mask;
    return { ...region, mask, box: region.box ?? boxOf(region, layout) };
  });
  return { ...layout, width, height, regions };
}
