// What a press of the pointer begins: drawing a box, moving, resizing, painting, or moving the view.

import {
  CELL,
  boxBetween,
  clamp,
  closeBox,
  contains,
  moveBox,
  resizeBox,
  snapLines,
  snapMove,
  snapPoint,
  snapResize,
  toShares,
  withLeastSize,
} from "./geometry.js";
import { t } from "./languages.js";
import { readMask, writeMask } from "./masks.js";
import { fillBox, paintLine } from "./painting.js";
import { boundsOf, copyPixels, emptyPixels, maskSize } from "./pixels.js";
import { addRegion, boxOf, settle, updateRegion } from "./state.js";
import { maskBitmap } from "./bitmaps.js";

const STILL = 3; // pixels of the screen that a click may wander
const SNAP_REACH = 6; // pixels of the screen within which an edge is drawn to a line

/** Begins the gesture that fits the tool and the place; it has move(point, event, screen) and end(point, event). */
export function startGesture(surface, event, screen, point, tool) {
  const { editor } = surface;
  if (event.button === 1 || surface.isPanning) return pan(surface, screen);
  if (tool === "brush" || tool === "eraser") return paint(surface, point, tool === "brush");
  if (tool === "box") return drawBox(surface, point);
  const handle = surface.handleAt(point);
  if (handle) return reshape(surface, point, handle);
  const behind = event.ctrlKey || event.metaKey;
  const top = surface.regionAt(point, behind ? editor.selected : null);
  const selectedBox = editor.region && !editor.region.locked && !editor.region.hidden && editor.pixelBox(editor.region);
  // What is selected can be moved even where something lies in front of it; a mere click takes what is in front.
  const isOnSelected = !behind && selectedBox && contains(selectedBox, point);
  if (!top && !isOnSelected) return drawBox(surface, point);
  if (!isOnSelected) editor.select(top.key);
  return reshape(surface, point, null, top?.key ?? null);
}

function pan(surface, from) {
  const view = surface.view;
  return {
    move(_, event, screen) {
      surface.view = { ...view, x: view.x + screen[0] - from[0], y: view.y + screen[1] - from[1] };
      surface.isFitted = false;
    },
    end() {},
  };
}

/** Distances on the screen in pixels of the canvas, and what edges are drawn to. */
function snapping(surface, exceptKey) {
  const { editor, view } = surface;
  const { width, height, regions } = editor.layout;
  const others = regions.filter((region) => region.key !== exceptKey && !region.hidden);
  const boxes = others.map((region) => editor.pixelBox(region)).filter((box) => box);
  return {
    width,
    height,
    lines: snapLines(boxes, width, height),
    reach: SNAP_REACH / view.scale,
    isOn: (event) => editor.snap && !event.altKey,
    least: (event) => (editor.snap && !event.altKey ? CELL : 1),
  };
}

function drawBox(surface, from) {
  const { editor } = surface;
  const { width, height, lines, reach, isOn, least } = snapping(surface, null);
  const inside = ([x, y]) => [clamp(x, 0, width), clamp(y, 0, height)];
  const corner = (point, event) =>
    isOn(event) ? snapPoint(inside(point), lines, reach, width, height) : inside(point);
  const wanders = (point) => Math.hypot(point[0] - from[0], point[1] - from[1]) * surface.view.scale > STILL;
  const boxTo = (point, event) =>
    withLeastSize(boxBetween(corner(from, event), corner(point, event)), least(event), width, height);
  return {
    move(point, event) {
      surface.draft = wanders(point) ? boxTo(point, event) : null;
    },
    end(point, event) {
      if (!wanders(point)) return editor.select(null);
      const box = toShares(boxTo(point, event), width, height);
      // A region without a place, such as one that waits for a connected box, takes the first box that is drawn.
      if (editor.region && !editor.region.box && !editor.region.mask) editor.change(editor.selected, { box });
      else editor.add({ box });
      editor.setTool("select");
      surface.actions.name();
    },
  };
}

function reshape(surface, from, handle, clicked) {
  const { editor } = surface;
  const start = editor.layout;
  const region = editor.region;
  const box = editor.pixelBox(region);
  const { width, height, lines, reach, isOn, least } = snapping(surface, region.key);
  let hasMoved = false;
  return {
    move(point, event) {
      const [dx, dy] = [point[0] - from[0], point[1] - from[1]];
      if (!hasMoved && Math.hypot(dx, dy) * surface.view.scale <= STILL) return;
      hasMoved = true;
      let moved = handle ? resizeBox(box, handle, dx, dy, width, height) : moveBox(box, dx, dy, width, height);
      surface.guides = null;
      if (isOn(event)) {
        const snapped = handle
          ? snapResize(moved, handle, lines, reach, width, height)
          : snapMove(moved, lines, reach, width, height);
        moved = snapped.box;
        surface.guides = snapped.guides;
      }
      if (handle) moved = closeBox(moved, handle, least(event), width, height);
      editor.preview(updateRegion(start, region.key, editor.placed(region, moved)));
    },
    end() {
      if (hasMoved) editor.commit(updateRegion(start, region.key, settle(editor.region, start)));
      else if (clicked) editor.select(clicked);
    },
  };
}

function paint(surface, from, adds) {
  const { editor } = surface;
  const before = editor.layout;
  const { width, height } = before;
  let region = editor.region;
  if (region && (region.locked || region.hidden)) {
    const phrase = region.phrase || t("unnamed");
    editor.say(
      region.locked
        ? t("“{phrase}” is locked, so it cannot be painted.", { phrase })
        : t("“{phrase}” is hidden, so it cannot be painted.", { phrase }),
    );
    return { move() {}, end() {} };
  }
  if (!region && !adds) {
    editor.say(t("Select the region to erase from first."));
    return { move() {}, end() {} };
  }
  const isNew = !region;
  if (isNew) {
    const [layout, key] = addRegion(before, {});
    editor.preview(layout);
    editor.selected = key;
    region = editor.region;
  }
  const pixels = pixelsToPaint(region, before);
  surface.stroke = { key: region.key, pixels };
  const scale = pixels.width / width;
  const inMask = ([x, y]) => [(x / width) * pixels.width, (y / height) * pixels.height];
  let last = inMask(from);
  let touched = region.box ?? boxOf(region, before);
  const stamp = (point) => {
    const next = inMask(point);
    const changed = paintLine(pixels, last, next, Math.max(0.6, surface.radius * scale), adds, editor.softness);
    maskBitmap(pixels, region.tint, changed);
    last = next;
    if (!adds || changed[0] >= changed[2] || changed[1] >= changed[3]) return;
    const [x0, y0, x1, y1] = [
      changed[0] / pixels.width,
      changed[1] / pixels.height,
      changed[2] / pixels.width,
      changed[3] / pixels.height,
    ];
    const old = touched ?? [x0, y0, x1, y1];
    touched = [Math.min(old[0], x0), Math.min(old[1], y0), Math.max(old[2], x1), Math.max(old[3], y1)];
    editor.preview(updateRegion(editor.layout, region.key, { box: touched }));
  };
  stamp(from);
  return {
    move: stamp,
    end(point) {
      stamp(point);
      const mask = writeMask(pixels);
      const shape = mask ? { mask, box: boundsOf(pixels) } : { mask: null, box: boxOf(region, before) };
      if (!mask && isNew) {
        editor.selected = null;
        return editor.preview(before);
      }
      if (!mask) editor.say(t("Nothing of the mask was left, so the region is a box again."));
      editor.commit(updateRegion(editor.layout, region.key, shape));
      if (isNew) surface.actions.name();
    },
  };
}

/** The region's pixels to paint on: its mask, or its box filled in, on a grid as fine as the editor's own. */
function pixelsToPaint(region, layout) {
  const drawn = readMask(region.mask, layout.width, layout.height);
  if (drawn) return copyPixels(drawn);
  const size = maskSize(layout.width, layout.height);
  const pixels = emptyPixels(size.width, size.height);
  return region.box ? fillBox(pixels, region.box) : pixels;
}
