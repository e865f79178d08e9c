// What the keys do. Keys that nobody here wants go on to ComfyUI, so that Ctrl + Enter still queues.

import { CELL, closeBox, keyHandle, moveBox, resizeBox } from "./geometry.js";
import { commandOf } from "./shortcuts.js";
import { settle, updateRegion } from "./state.js";

const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
const ZOOM = 1.25;
const SOFTER = 0.1; // of the brush's radius, a step of its softness

export function handleKey(event, surface) {
  const isOurs = act(event, surface);
  const isPlain = !event.ctrlKey && !event.metaKey && event.key !== "Tab" && !/^F\d+$/.test(event.key);
  if (isOurs) event.preventDefault();
  // A plain key that means nothing here must not delete the node or open a panel of the graph editor either.
  if (isOurs || isPlain) event.stopPropagation();
}

function act(event, surface) {
  const { editor } = surface;
  const key = event.key.toLowerCase();
  if (editor.problem !== null) return false;
  if (key in ARROWS) return nudge(event, surface, ARROWS[key]);
  const command = commandOf(event);
  if (command) return run(command, surface);
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const others = {
    " ": () => surface.setPanning(true),
    "[": () => editor.setBrush(editor.brush / 1.25),
    "]": () => editor.setBrush(editor.brush * 1.25),
    "{": () => editor.setSoftness(editor.softness - SOFTER),
    "}": () => editor.setSoftness(editor.softness + SOFTER),
    "+": () => surface.zoom(ZOOM),
    "=": () => surface.zoom(ZOOM),
    "-": () => surface.zoom(1 / ZOOM),
    n: () => editor.selectNext(event.shiftKey ? -1 : 1),
    pageup: () => editor.selected !== null && editor.shift(editor.selected, 1),
    pagedown: () => editor.selected !== null && editor.shift(editor.selected, -1),
  };
  if (!Object.hasOwn(others, key)) return false;
  others[key]();
  return true;
}

/** Runs a command of the table of shortcuts; true where it did something. */
export function run(command, surface) {
  const { editor, actions } = surface;
  const region = editor.region;
  const toRegion = {
    name: () => actions.name(),
    duplicate: () => editor.duplicate(region.key),
    delete: () => editor.remove(region.key),
    hide: () => editor.change(region.key, { hidden: !region.hidden }),
    lock: () => editor.change(region.key, { locked: !region.locked }),
  };
  const toAll = {
    select: () => editor.setTool("select"),
    box: () => editor.setTool("box"),
    brush: () => editor.setTool("brush"),
    eraser: () => editor.setTool("eraser"),
    add: () => editor.addInMiddle(),
    undo: () => editor.undo(),
    redo: () => editor.redo(),
    snap: () => editor.setSnap(!editor.snap),
    result: () => actions.toggle("result"),
    maps: () => actions.toggle("maps"),
    window: () => actions.window(),
    fit: () => surface.fit(),
    help: () => actions.help(),
    escape: () => surface.cancel() || letGo(editor) || actions.leaveWindow(),
  };
  // A step back in the middle of a gesture would pull the ground away from under it.
  if (surface.gesture && command !== "escape") return true;
  if (command in toAll) toAll[command]();
  else if (region) toRegion[command]();
  return true;
}

/** Lets go of the tool or of the region; false where nothing was held. */
function letGo(editor) {
  if (editor.tool !== "select") editor.setTool("select");
  else if (editor.selected !== null) editor.select(null);
  else return false;
  return true;
}

function nudge(event, { editor }, [right, down]) {
  const region = editor.region;
  const box = editor.pixelBox(region);
  if (event.ctrlKey || event.metaKey) return false;
  if (!box || region.locked) return true;
  const step = event.altKey ? 1 : CELL;
  const { width, height } = editor.layout;
  const [dx, dy] = [right * step, down * step];
  const handle = keyHandle(right);
  const moved = event.shiftKey
    ? closeBox(resizeBox(box, handle, dx, dy, width, height), handle, step, width, height)
    : moveBox(box, dx, dy, width, height);
  if (moved.every((value, i) => value === box[i])) return true;
  const place = settle({ ...region, ...editor.placed(region, moved) }, editor.layout);
  editor.commit(updateRegion(editor.layout, region.key, place), { tag: `arrows ${region.key}` });
  return true;
}
