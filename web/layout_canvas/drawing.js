// Paints the canvas: ground, picture, grid, regions from far to near, handles, guides and the brush.

import { shownMap } from "./attention.js";
import { channels, maskBitmap } from "./bitmaps.js";
import { gridStep, HANDLES, handlePoint } from "./geometry.js";
import { drawHeat } from "./heat.js";
import { readMask } from "./masks.js";
import { offered } from "./offer.js";
import { boxOf } from "./state.js";

const NOBODY = 0; // the key of no region of the drawing
const CORNER = 8; // side of a handle on the screen

/** Black or white, whichever is easier to read on a colour. */
export function inkOn(tint) {
  const [red, green, blue] = channels(tint);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#101114" : "#ffffff";
}

/**
 * @param context of a canvas whose unit is one pixel of the screen before ComfyUI's own zoom
 * @param scene {editor, view, size: [w, h], theme, hover, guides, draft, pointer, stroke}
 */
export function draw(context, scene) {
  const { editor, view, size, theme } = scene;
  const { width, height } = editor.layout;
  context.clearRect(0, 0, ...size);
  const sheet = [view.x, view.y, width * view.scale, height * view.scale];
  context.fillStyle = theme.sheet;
  context.fillRect(...sheet);
  const place = drawPicture(context, editor, sheet);
  const map = shownMap(editor);
  if (map) drawHeat(context, map, place, editor.shows.mapOpacity);
  drawGrid(context, scene, sheet);
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  context.strokeRect(sheet[0] - 0.5, sheet[1] - 0.5, sheet[2] + 1, sheet[3] + 1);
  const regions = editor.layout.regions;
  for (const region of offered(editor)) drawOffered(context, scene, region);
  for (const region of regions) drawRegion(context, scene, region);
  for (const region of regions) drawLabel(context, scene, region);
  if (scene.draft) drawDraft(context, scene);
  if (editor.region && !editor.region.hidden) drawHandles(context, scene, editor.region);
  drawGuides(context, scene, sheet);
  drawBrush(context, scene);
}

/** The picture below the regions; a map lies over the one that it was read in. */
const pictureOf = (editor) =>
  (shownMap(editor) && editor.maps.picture) || (editor.shows.result && editor.result) || editor.picture;

/** Draws it and gives its place on the screen; without a picture that is the whole sheet. */
function drawPicture(context, editor, sheet) {
  const picture = pictureOf(editor);
  if (!picture) return sheet;
  context.globalAlpha = editor.shows.opacity;
  context.imageSmoothingQuality = "high";
  // Whole and in the middle, as the preview shows a picture of another shape.
  const [left, top, wide, tall] = sheet;
  const scale = Math.min(wide / picture.naturalWidth, tall / picture.naturalHeight);
  const size = [picture.naturalWidth * scale, picture.naturalHeight * scale];
  const place = [left + (wide - size[0]) / 2, top + (tall - size[1]) / 2, ...size];
  context.drawImage(picture, ...place);
  context.globalAlpha = 1;
  return place;
}

function drawGrid(context, { editor, view, theme, size }, [left, top, wide, tall]) {
  if (!editor.snap) return;
  const step = gridStep(view.scale) * view.scale;
  const lines = (every, colour) => {
    context.beginPath();
    // Only what is on the screen, however large the canvas is.
    for (let i = Math.max(1, Math.ceil(-left / every)); i * every < wide && left + i * every < size[0]; i++) {
      const x = Math.round(left + i * every) + 0.5;
      context.moveTo(x, Math.max(0, top));
      context.lineTo(x, Math.min(size[1], top + tall));
    }
    for (let i = Math.max(1, Math.ceil(-top / every)); i * every < tall && top + i * every < size[1]; i++) {
      const y = Math.round(top + i * every) + 0.5;
      context.moveTo(Math.max(0, left), y);
      context.lineTo(Math.min(size[0], left + wide), y);
    }
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.stroke();
  };
  if (pictureOf(editor)) context.globalAlpha = 0.5;
  lines(step, theme.grid);
  lines(step * 8, theme.grid);
  context.globalAlpha = 1;
}

/** A region's box on the screen, or null. */
function screenBox({ editor, view }, region) {
  const box = boxOf(region, editor.layout);
  if (!box) return null;
  const { width, height } = editor.layout;
  const place = (share, side, start) => start + share * side * view.scale;
  const [x0, y0] = [place(box[0], width, view.x), place(box[1], height, view.y)];
  return [x0, y0, place(box[2], width, view.x), place(box[3], height, view.y)];
}

/** A connected thing, which nobody has taken over yet: fainter, and without handles. */
function drawOffered(context, scene, region) {
  context.save();
  context.globalAlpha = 0.75;
  const shown = { ...region, key: NOBODY };
  drawRegion(context, scene, shown);
  drawLabel(context, scene, shown);
  context.restore();
}

function drawRegion(context, scene, region) {
  const box = screenBox(scene, region);
  if (!box) return;
  const [x, y, wide, tall] = [box[0], box[1], box[2] - box[0], box[3] - box[1]];
  const isSelected = region.key === scene.editor.selected;
  const pixels =
    scene.stroke?.key === region.key
      ? scene.stroke.pixels
      : readMask(region.mask, scene.editor.layout.width, scene.editor.layout.height);
  const before = context.globalAlpha;
  context.globalAlpha = before * (region.hidden ? 0.3 : 1);
  if (pixels) {
    drawMask(context, scene, region, pixels);
  } else if (!region.hidden && !shownMap(scene.editor)) {
    // Over a picture the colours step back, so that what came can be compared with what was asked.
    const [strong, faint] = pictureOf(scene.editor) ? ["1f", "00"] : ["3d", "26"];
    context.fillStyle = region.tint + (isSelected || scene.hover === region.key ? strong : faint);
    context.fillRect(x, y, wide, tall);
  }
  if (!pixels || isSelected || region.hidden) {
    context.setLineDash(region.hidden || pixels ? [5, 4] : []);
    context.lineWidth = isSelected ? 4 : 3;
    context.strokeStyle = "rgba(0, 0, 0, 0.35)";
    context.strokeRect(x, y, wide, tall);
    context.lineWidth = isSelected ? 2 : 1.5;
    context.strokeStyle = region.tint;
    context.strokeRect(x, y, wide, tall);
    context.setLineDash([]);
  }
  context.globalAlpha = before;
}

function drawMask(context, { editor, view }, region, pixels) {
  const { width, height } = editor.layout;
  const bitmap = maskBitmap(pixels, region.tint);
  // While a gesture lasts, the old pixels are shown in the new place.
  const { from, to } = region.warp ?? { from: [0, 0, 1, 1], to: [0, 0, 1, 1] };
  const stretch = [0, 1].map((axis) => (to[axis + 2] - to[axis]) / (from[axis + 2] - from[axis]));
  context.save();
  if (pictureOf(editor)) context.globalAlpha *= shownMap(editor) ? 0.3 : 0.8;
  context.beginPath();
  context.rect(view.x, view.y, width * view.scale, height * view.scale);
  context.clip();
  const x = view.x + (to[0] - from[0] * stretch[0]) * width * view.scale;
  const y = view.y + (to[1] - from[1] * stretch[1]) * height * view.scale;
  context.drawImage(bitmap, x, y, width * view.scale * stretch[0], height * view.scale * stretch[1]);
  context.restore();
}

function drawLabel(context, scene, region) {
  const box = screenBox(scene, region);
  const isSelected = region.key === scene.editor.selected;
  if (!box || region.hidden || (!isSelected && box[2] - box[0] < 26)) return;
  context.font = `600 11px ${scene.theme.font}`;
  context.textBaseline = "middle";
  const words = region.phrase.trim() || "unnamed";
  const mark = region.locked ? 12 : 0;
  const room = Math.max(isSelected ? 90 : 0, box[2] - box[0]) - 12 - mark;
  const text = shorten(context, words, room);
  if (!text) return;
  const wide = context.measureText(text).width + 10 + mark;
  // Above the box where there is room, so that it covers nothing; the canvas' edge pushes it in.
  const x = Math.max(2, Math.min(box[0] - 1, scene.size[0] - wide - 2));
  const y = box[1] - 18 >= 1 ? box[1] - 18 : Math.max(2, box[1] + 1);
  const before = context.globalAlpha;
  context.globalAlpha = before * (isSelected ? 1 : 0.9);
  context.fillStyle = region.tint;
  context.beginPath();
  context.roundRect(x, y, wide, 17, 3);
  context.fill();
  context.globalAlpha = before;
  context.fillStyle = context.strokeStyle = inkOn(region.tint);
  context.fillText(text, x + 5, y + 9);
  if (region.locked) drawLock(context, x + wide - mark - 1, y + 4);
}

function drawLock(context, x, y) {
  context.fillRect(x, y + 4, 8, 5.5);
  context.lineWidth = 1.3;
  context.beginPath();
  context.arc(x + 4, y + 4, 2.5, Math.PI, 0);
  context.stroke();
}

const widths = new Map(); // label and room -> what fits

function shorten(context, words, room) {
  if (room < 8) return "";
  const key = `${Math.round(room)} ${words}`;
  if (!widths.has(key)) {
    if (widths.size > 2000) widths.clear();
    const letters = [...words];
    let count = letters.length;
    const text = () => (count < letters.length ? `${letters.slice(0, count).join("")}…` : words);
    // A long phrase is cut to what could fit at all before anything is measured.
    if (count > room / 2) count = Math.ceil(room / 2);
    while (count > 0 && context.measureText(text()).width > room) count--;
    widths.set(key, count ? text() : "");
  }
  return widths.get(key);
}

function drawDraft(context, { draft, view, theme }) {
  const [x0, y0, x1, y1] = draft.map((value, i) => value * view.scale + (i % 2 ? view.y : view.x));
  context.fillStyle = `${theme.accent}2e`;
  context.fillRect(x0, y0, x1 - x0, y1 - y0);
  context.strokeStyle = theme.accent;
  context.lineWidth = 1.5;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
}

function drawHandles(context, scene, region) {
  const box = screenBox(scene, region);
  if (!box || region.locked || scene.editor.tool === "brush" || scene.editor.tool === "eraser") return;
  const tiny = Math.min(box[2] - box[0], box[3] - box[1]) < 3 * CORNER;
  for (const handle of HANDLES) {
    if (tiny && handle.length < 2) continue;
    const [x, y] = handlePoint(box, handle);
    context.beginPath();
    context.roundRect(x - CORNER / 2, y - CORNER / 2, CORNER, CORNER, 2);
    context.fillStyle = "#ffffff";
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = "rgba(0, 0, 0, 0.65)";
    context.stroke();
  }
}

function drawGuides(context, { guides, view, theme }, [left, top, wide, tall]) {
  if (!guides) return;
  context.strokeStyle = theme.accent;
  context.lineWidth = 1;
  context.setLineDash([4, 3]);
  context.beginPath();
  if (guides.x !== null) {
    const x = Math.round(view.x + guides.x * view.scale) + 0.5;
    context.moveTo(x, top);
    context.lineTo(x, top + tall);
  }
  if (guides.y !== null) {
    const y = Math.round(view.y + guides.y * view.scale) + 0.5;
    context.moveTo(left, y);
    context.lineTo(left + wide, y);
  }
  context.stroke();
  context.setLineDash([]);
}

function drawBrush(context, { editor, view, pointer, radius }) {
  if (!pointer || (editor.tool !== "brush" && editor.tool !== "eraser")) return;
  const [x, y] = [pointer[0] * view.scale + view.x, pointer[1] * view.scale + view.y];
  const { softness } = editor;
  const rings = [
    ["rgba(0, 0, 0, 0.55)", 3, 1],
    ["#ffffff", 1.3, 1],
  ];
  // The inner ring is where a soft brush begins to fade.
  if (softness > 0 && softness < 1) rings.push(["rgba(255, 255, 255, 0.6)", 1, 1 - softness]);
  for (const [colour, wide, share] of rings) {
    context.beginPath();
    context.arc(x, y, Math.max(1, radius * share * view.scale), 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = wide;
    context.stroke();
  }
}
