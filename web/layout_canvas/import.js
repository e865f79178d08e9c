// Reads layouts of others: our own JSON, COCO, GLIGEN-style boxes, Ideogram 4's JSON prompt and ComfyUI's own boxes.

import { t } from "./languages.js";
import { isLegalSize, MOST_PIXELS, readMask, writeMask } from "./masks.js";
import { fillPolygon, warpPixels } from "./painting.js";
import { boundsOf, emptyPixels, FULL, maskSize } from "./pixels.js";
import { decodeRuns, pixelsOfRuns } from "./runs.js";
import { addRegion, LayoutTextError, layoutOf } from "./state.js";

const GRID = 1000; // elements of ComfyUI's box editor count from 0 to this along each side
const NAMES = ["phrase", "text", "name", "label", "desc", "caption", "category"];
const COMPOSITION = "compositional_deconstruction"; // the part of Ideogram 4's prompt that says what is where
const STYLE = ["aesthetics", "lighting", "photo", "medium", "art_style"];
const PALETTES = ["palette", "color_palette"];
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isBox = (value) => Array.isArray(value) && value.length === 4 && value.every(Number.isFinite);

/**
 * Brings a text of any known kind into a layout.
 *
 * A layout of our own takes the place of the present one. Boxes of others are added in front of it; where nothing is
 * drawn yet, the canvas takes the size that they come with.
 */
export function importText(text, layout) {
  let data;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new LayoutTextError(t("This file is not valid JSON: {error}", { error: error.message }));
  }
  if (isObject(data) && Array.isArray(data.regions)) {
    return layoutOf({ width: layout.width, height: layout.height, ...data });
  }
  const { canvas, places, isOrdered } = readerOf(data)(data, layout);
  let result = layout.regions.length || !canvas ? layout : { ...layout, ...canvas };
  const sized = places(result).map(({ order = 0, ...place }) => ({ place, order, area: isOrdered ? 0 : areaOf(place) }));
  // Larger things are laid behind smaller ones where a format knows no order.
  sized.sort((a, b) => a.order - b.order || b.area - a.area);
  for (const { place } of sized) result = addRegion(result, place)[0];
  if (result.regions.length === layout.regions.length) throw new LayoutTextError(t("There is no box in this file."));
  return result;
}

/** Puts the regions of one layout in front of those of another; where nothing is drawn, it takes its place. */
export function addLayout(front, layout) {
  if (!layout.regions.length) return { ...front, editor: layout.editor };
  const places = front.regions.map(({ key: _, tint: __, ...place }) => place);
  return places.reduce((joined, place) => addRegion(joined, place)[0], layout);
}

function readerOf(data) {
  if (isObject(data) && Array.isArray(data.annotations)) return readCoco;
  return isObject(data) && data[COMPOSITION] !== undefined ? readJsonPrompt : readBoxes;
}

/** The share of the canvas that a place covers. */
function areaOf({ box, mask }) {
  if (!mask) return (box[2] - box[0]) * (box[3] - box[1]);
  const { data } = readMask(mask);
  return data.reduce((sum, value) => sum + value, 0) / (FULL * data.length);
}

/** COCO: boxes in pixels of the first picture, segmentations as polygons or runs, its caption as the prompt. */
function readCoco({ images, annotations, categories }) {
  const image = Array.isArray(images) ? images[0] : null;
  const { width, height } = image ?? {};
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
    throw new LayoutTextError(
      t("The first picture in \"images\" of this COCO file has no width and height in pixels."),
    );
  }
  const own = annotations.filter((each) => image.id === undefined || each.image_id === image.id);
  const things = own.filter((each) => each.bbox !== undefined || each.segmentation !== undefined);
  if (!things.length) throw new LayoutTextError(t("The first picture of this COCO file has no box and no outline."));
  const names = new Map((categories ?? []).map(({ id, name }) => [id, name]));
  const caption = own.map((each) => each.caption).find((words) => typeof words === "string");
  const places = (layout) =>
    things.map((thing) => {
      const phrase = thing.phrase || thing.category_name || names.get(thing.category_id);
      if (typeof phrase !== "string") {
        throw new LayoutTextError(
          t("A COCO annotation has the category {category}, which has no name.", { category: thing.category_id }),
        );
      }
      const mask = readSegmentation(thing.segmentation, width, height, layout, phrase);
      if (mask) return { phrase, mask: writeMask(mask), box: boundsOf(mask) };
      if (!isBox(thing.bbox)) {
        throw new LayoutTextError(t("“{phrase}” has neither a bbox nor an outline with an inside.", { phrase }));
      }
      const [x, y, w, h] = thing.bbox;
      return { phrase, box: onCanvas([x / width, y / height, (x + w) / width, (y + h) / height]) };
    });
  return { canvas: { width, height, ...(caption === undefined ? {} : { prompt: caption.trim() }) }, places };
}

/** Pixels as fine as the editor's own masks, or null where there is no segmentation or nothing in it. */
function readSegmentation(segmentation, width, height, layout, phrase) {
  const size = maskSize(layout.width, layout.height);
  let pixels = emptyPixels(size.width, size.height);
  if (Array.isArray(segmentation) && segmentation.length) {
    for (const polygon of segmentation)
      fillPolygon(
        pixels,
        polygon.map((value, i) => value / (i % 2 ? height : width)),
      );
  } else if (isObject(segmentation) && Array.isArray(segmentation.size)) {
    const [rows, columns] = segmentation.size;
    if (!isLegalSize(columns, rows)) {
      throw new LayoutTextError(
        t("The outline of “{phrase}” has {columns} × {rows} pixels; at most {most} are read.", {
          phrase,
          columns,
          rows,
          most: MOST_PIXELS,
        }),
      );
    }
    const whole = [0, 0, 1, 1];
    pixels = warpPixels(readRuns(segmentation.counts, columns, rows, phrase), whole, whole, size.width, size.height);
  }
  return pixels.data.includes(FULL) ? pixels : null;
}

function readRuns(counts, columns, rows, phrase) {
  try {
    return pixelsOfRuns(typeof counts === "string" ? decodeRuns(counts) : counts, columns, rows);
  } catch (error) {
    throw new LayoutTextError(
      t("The outline of “{phrase}” cannot be read: {error}.", { phrase, error: error.message }),
    );
  }
}

/** Ideogram 4's prompt: elements with boxes, farthest first; the words of its style join the prompt. */
function readJsonPrompt(data, layout) {
  const composition = data[COMPOSITION];
  const elements = isObject(composition) ? composition.elements : null;
  if (!Array.isArray(elements) || !elements.every(isObject)) {
    throw new LayoutTextError(
      t(
        "The \"{part}\" of this JSON prompt has no list of elements with \"desc\" and " +
          "\"bbox\": [ymin, xmin, ymax, xmax] from 0 to 1000.",
        { part: COMPOSITION },
      ),
    );
  }
  const withoutPlace = elements.find((each) => each.bbox === undefined);
  if (withoutPlace) {
    throw new LayoutTextError(
      t(
        "The element “{phrase}” of this JSON prompt has no place. Give it a \"bbox\": " +
          "[ymin, xmin, ymax, xmax] from 0 to 1000, or take it out.",
        { phrase: nameOf(withoutPlace) },
      ),
    );
  }
  const style = isObject(data.style_description) ? data.style_description : {};
  const isSaid = (text) => typeof text === "string" && text.trim();
  const said = [data.high_level_description, ...STYLE.map((key) => style[key])].filter(isSaid);
  const prompt = said.map((text) => text.trim().replace(/\.+$/, "")).join(", ");
  const { background } = composition;
  return {
    ...readBoxes(elements, layout),
    isOrdered: true,
    canvas: { ...(prompt && { prompt }), ...(isSaid(background) && { background: background.trim() }) },
  };
}

/** Everything else: lists of boxes with or without names, GLIGEN's phrases and locations, ComfyUI's boxes. */
function readBoxes(data, layout) {
  const phrases = isObject(data) ? (data.phrases ?? data.gligen_phrases ?? data.labels) : null;
  const list = isObject(data)
    ? (data.boxes ?? data.locations ?? data.gligen_boxes ?? data.bboxes ?? data.elements ?? [data])
    : data;
  if (!Array.isArray(list)) throw new LayoutTextError(t("This JSON holds neither a layout nor boxes."));
  // ComfyUI's editor puts the boxes of every frame into a list of their own; a layout is one frame.
  const boxes = list.length === 1 && Array.isArray(list[0]) && !isBox(list[0]) ? list[0] : list;
  // One box alone has a size too, which is its own.
  const isCanvas = isObject(data) && data.x === undefined && data.width > 0 && data.height > 0;
  const canvas = isCanvas ? { width: data.width, height: data.height } : null;
  const { width, height } = canvas ?? layout;
  const plain = boxes
    .map((box) => (isObject(box) ? (box.box ?? box.location) : box))
    .filter(isBox)
    .flat();
  // GLIGEN counts in shares of the picture, its relatives in pixels; only pixels pass 1.
  const inPixels = plain.some((value) => value > 1);
  const places = () =>
    boxes.map((box, i) => ({
      phrase: nameOf(box, phrases?.[i]),
      box: onCanvas(readBox(box, width, height, inPixels)),
      ...looksOf(box),
    }));
  return { canvas, places, isOrdered: boxes.every((box) => isObject(box) && (box.bbox ?? box.x) !== undefined) };
}

/** What ComfyUI's boxes and elements say beside their place: the colour that comes first, and how near they are. */
function looksOf(box) {
  const sources = isObject(box) ? [isObject(box.metadata) ? box.metadata : {}, box] : [];
  const palette = sources.flatMap((each) => PALETTES.map((key) => each[key])).find((each) => each?.length);
  const order = sources[0]?.z_index;
  return {
    ...(Array.isArray(palette) && typeof palette[0] === "string" && { colour: palette[0] }),
    ...(Number.isInteger(order) && { order }),
  };
}

/** Four numbers, which some programs write as texts, or null. */
function numbers(values) {
  if (!Array.isArray(values)) return null;
  const read = values.map((each) => (typeof each === "string" && each.trim() ? Number(each) : each));
  return isBox(read) ? read : null;
}

function readBox(box, width, height, inPixels) {
  const corners = isObject(box) ? (box.box ?? box.location) : box;
  if (isBox(corners)) {
    return inPixels ? corners.map((value, i) => value / (i % 2 ? height : width)) : corners;
  }
  const [grid, pixels] = isObject(box) ? [numbers(box.bbox), numbers([box.x, box.y, box.width, box.height])] : [];
  if (grid) {
    const [top, left, bottom, right] = grid.map((value) => value / GRID);
    return [Math.min(left, right), Math.min(top, bottom), Math.max(left, right), Math.max(top, bottom)];
  }
  if (pixels) {
    const [x, y, wide, high] = contentOf(pixels, box);
    return [x / width, y / height, (x + wide) / width, (y + high) / height];
  }
  throw new LayoutTextError(t("A box has no known form; expected x0 y0 x1 y1, or x, y, width and height in pixels."));
}

/** The box around what a padded layer really shows, where its node says so; as the server's boxes.py reads it. */
function contentOf([x, y, wide, high], { metadata }) {
  const rect = isObject(metadata) && isBox(metadata.content_rect) ? metadata.content_rect : null;
  return rect && rect[2] > 0 && rect[3] > 0 ? [x + rect[0], y + rect[1], rect[2], rect[3]] : [x, y, wide, high];
}

function nameOf(box, phrase) {
  const sources = isObject(box) ? [isObject(box.metadata) ? box.metadata : {}, box] : [];
  const found = sources
    .flatMap((source) => NAMES.map((name) => source[name]))
    .find((name) => (typeof name === "string" && name.trim()) || typeof name === "number");
  return String(phrase ?? found ?? "").trim();
}

function onCanvas(box) {
  const [x0, y0, x1, y1] = box.map((value) => Math.round(Math.min(Math.max(value, 0), 1) * 1e6) / 1e6);
  if (!(x0 < x1 && y0 < y1))
    throw new LayoutTextError(t("The box {box} has no area on the canvas.", { box: box.join(" ") }));
  return [x0, y0, x1, y1];
}
