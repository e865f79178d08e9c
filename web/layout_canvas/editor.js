// The editor's model: the layout, what is selected, which tool is on, and the steps to undo. The views listen to it.

import { checkLayout } from "./checks.js";
import { CELL, toPixels, withLeastSize, toShares } from "./geometry.js";
import { History } from "./history.js";
import { forgetMask, limitMasks, loadSoftMask } from "./masks.js";
import * as state from "./state.js";

export class Editor {
  /** @param {{changed: (goesOn: boolean) => void}} host told after every change of the text; `goesOn` while one types */
  constructor(host) {
    this.host = host;
    this.listeners = [];
    this.tool = "select";
    this.brush = 24; // radius in pixels of a canvas whose longer side is 512
    this.softness = 0; // share of the radius along which the brush fades
    this.snap = true;
    this.selected = null;
    this.isHeld = false; // while a gesture lasts
    this.waiting = []; // what to do after it
    this.notice = "";
    this.result = null; // a picture of the last run
    this.picture = null; // the picture that is connected
    this.offer = null; // the layout that is connected, see offer.js
    this.maps = null; // what the phrases looked at in the last run, see attention.js
    this.ran = null; // what that run was of
    this.shows = { result: true, opacity: 1, maps: true, mapOpacity: 0.85 };
    this.read("");
  }

  /** Calls back after every change with a set of "layout", "selection", "tool", "view", "drag" and "text". */
  listen(listener) {
    this.listeners.push(listener);
  }

  tell(...kinds) {
    for (const listener of this.listeners) listener(new Set(kinds));
  }

  /** Takes a text that comes from outside: a loaded workflow, an undo of the graph, the API. */
  read(text) {
    const place = this.layout ? this.layout.regions.findIndex((region) => region.key === this.selected) : -1;
    this.text = text;
    this.problem = null;
    try {
      this.layout = state.parseLayout(text);
    } catch (error) {
      if (!(error instanceof state.LayoutTextError)) throw error;
      // The text stays what it is until the person decides.
      this.problem = error.message;
      this.layout = state.emptyLayout();
    }
    limitMasks(this.layout.regions.map(({ mask }) => mask));
    this.snap = this.layout.editor.snap !== false;
    this.history = new History(this.layout);
    this.selected = this.layout.regions[place]?.key ?? null;
    this.warnings = checkLayout(this.layout);
    this.tell("text", "layout", "selection");
    this.loadMasks();
  }

  /** Unpacks the masks that cannot be read at once. */
  async loadMasks() {
    // One after the other, because each takes five times its pixels while it is unpacked.
    for (const { mask } of this.layout.regions) if (await loadSoftMask(mask)) this.tell("layout");
  }

  get region() {
    return state.findRegion(this.layout, this.selected);
  }

  /** Carries out what comes at a time of its own, such as an upload's end: a gesture would overwrite it. */
  whenFree(act) {
    if (this.isHeld) this.waiting.push(act);
    else act();
  }

  hold() {
    this.isHeld = true;
  }

  letGo() {
    this.isHeld = false;
    for (const act of this.waiting.splice(0)) act();
  }

  /** Shows a layout while a gesture lasts; nothing is written yet. */
  preview(layout) {
    this.layout = layout;
    this.tell("drag");
  }

  /**
   * Makes a layout the present one, as one step to undo; steps in a row with the same tag are one. A text that is no
   * layout stays: only `read` and `startAnew` put another in its place.
   */
  commit(layout, { tag = null, select = this.selected } = {}) {
    if (this.problem !== null) return;
    if (layout !== this.history.state) this.history.push(layout, tag);
    this.settle(layout, select, tag !== null);
  }

  settle(layout, select = this.selected, goesOn = false) {
    const masks = layout.regions.map(({ mask }) => mask);
    for (const { mask } of this.layout.regions) if (!masks.includes(mask)) forgetMask(mask);
    limitMasks(masks);
    this.layout = layout;
    this.snap = layout.editor.snap !== false;
    this.selected = state.findRegion(layout, select) ? select : null;
    this.problem = null;
    this.text = state.writeLayout(layout);
    this.warnings = checkLayout(layout);
    this.tell("layout", "selection");
    this.loadMasks();
    this.host.changed(goesOn);
  }

  undo() {
    if (this.history.canUndo) this.settle(this.history.undo());
  }

  redo() {
    if (this.history.canRedo) this.settle(this.history.redo());
  }

  startAnew() {
    this.history = new History(state.emptyLayout());
    this.settle(this.history.state, null);
    this.tell("text");
  }

  select(key) {
    if (key === this.selected) return;
    this.history.seal();
    this.selected = key;
    this.tell("selection");
  }

  selectNext(step) {
    // From near to far, as the list shows them.
    const keys = this.layout.regions.map((region) => region.key).reverse();
    const at = keys.indexOf(this.selected);
    if (keys.length) this.select(keys[(at + step + keys.length) % keys.length]);
  }

  setTool(tool) {
    this.tool = tool;
    this.tell("tool");
  }

  setBrush(radius) {
    this.brush = Math.min(Math.max(Math.round(radius), 2), 200);
    this.tell("tool");
  }

  /** Takes the share of the radius along which the brush fades, in steps of a tenth. */
  setSoftness(softness) {
    this.softness = Math.min(Math.max(Math.round(softness * 10) / 10, 0), 1);
    this.tell("tool");
  }

  setSnap(snap) {
    const { snap: _, ...others } = this.layout.editor;
    this.commit({ ...this.layout, editor: snap ? others : { ...others, snap } });
  }

  say(notice) {
    this.notice = notice;
    this.tell("notice");
  }

  change(key, change, tag = null) {
    this.commit(state.updateRegion(this.layout, key, change), { tag: tag && `${tag} ${key}` });
  }

  add(place) {
    const [layout, key] = state.addRegion(this.layout, place);
    this.commit(layout, { select: key });
    return key;
  }

  /** A box in the middle, for those who draw with the keyboard. */
  addInMiddle() {
    const { width, height } = this.layout;
    const edge = (side, share) => Math.round((side * share) / CELL) * CELL;
    const box = [edge(width, 0.3), edge(height, 0.3), edge(width, 0.7), edge(height, 0.7)];
    return this.add({ box: toShares(withLeastSize(box, CELL, width, height), width, height) });
  }

  duplicate(key) {
    const [layout, copy] = state.duplicateRegion(this.layout, key, CELL);
    if (!copy) return;
    this.commit(layout, { select: copy });
  }

  remove(key) {
    const index = this.layout.regions.findIndex((region) => region.key === key);
    const layout = state.removeRegion(this.layout, key);
    const next = layout.regions[Math.min(index, layout.regions.length - 1)];
    this.commit(layout, { select: this.selected === key ? (next?.key ?? null) : this.selected });
  }

  /** Moves a region nearer (positive) or farther (negative). */
  shift(key, step) {
    this.reorder(key, this.layout.regions.findIndex((region) => region.key === key) + step);
  }

  reorder(key, index) {
    const layout = state.reorderRegion(this.layout, key, index);
    if (layout.regions.some((region, i) => region !== this.layout.regions[i])) this.commit(layout);
  }

  resize(width, height) {
    const legal = (side) =>
      Math.min(Math.max(Math.round(side) || state.SMALLEST_SIDE, state.SMALLEST_SIDE), state.LARGEST_SIDE);
    if (legal(width) === this.layout.width && legal(height) === this.layout.height) return;
    this.commit(state.resizeCanvas(this.layout, legal(width), legal(height)));
    this.tell("view");
  }

  /** Where a region lies, in pixels of the canvas, or null. */
  pixelBox(region) {
    const box = region && state.boxOf(region, this.layout);
    return box && toPixels(box, this.layout.width, this.layout.height);
  }

  /** What a region becomes when it is put into another box (pixels): a mask moves and stretches along. */
  placed(region, box) {
    const to = toShares(box, this.layout.width, this.layout.height);
    const from = region.warp?.from ?? state.boxOf(region, this.layout);
    return { box: to, warp: region.mask ? { from, to } : null };
  }
}
