// The drawing surface: an element that turns the pointer and the keyboard into edits and shows them.

import { element, keepKeys } from "./dom.js";
import { draw } from "./drawing.js";
import { cursorOf, fitView, zoomView } from "./geometry.js";
import { startGesture } from "./gestures.js";
import { handleOf, regionAt } from "./hits.js";
import { handleKey } from "./keyboard.js";
import { t } from "./languages.js";
import { Touches } from "./touches.js";

const [REACH, FINGER] = [7, 18]; // pixels of the screen around a handle that still take it, of a mouse and a finger
const ERASER = 5; // the button of a pen's other end
const SHARPEST = 3; // canvas pixels to one pixel of the page

export class Surface {
  /** @param actions what the keyboard can ask for beyond the editor: {name, paste, help} */
  constructor(editor, actions) {
    Object.assign(this, { editor, actions, hover: null, guides: null, draft: null, pointer: null, stroke: null });
    this.size = [0, 0];
    this.view = { scale: 1, x: 0, y: 0 };
    this.isFitted = true;
    this.gesture = null;
    this.touches = new Touches(this);
    this.canvas = element("canvas", { class: "stage-picture" });
    this.context = this.canvas.getContext("2d");
    this.element = keepKeys(element("div", { class: "stage-surface", tabindex: 0, role: "application" }, this.canvas));
    this.element.setAttribute("aria-roledescription", t("layout canvas"));
    this.element.stageSurface = this; // a way in for the console and the tests
    this.listenToPointer();
    this.element.addEventListener("keydown", (event) => handleKey(event, this));
    this.element.addEventListener("keyup", (event) => event.key === " " && this.setPanning(false));
    this.element.addEventListener("blur", () => this.setPanning(false));
    this.resizes = new ResizeObserver(() => this.resize());
    this.themes = new MutationObserver(() => this.readTheme());
    editor.listen((kinds) => {
      if (kinds.has("layout") || kinds.has("selection")) this.describe();
      if (kinds.has("layout") || kinds.has("view") || kinds.has("text")) this.refit();
      if (kinds.has("tool")) this.setCursor();
      this.request();
    });
    this.describe();
  }

  /** Watches the page, once the node is in a graph: what watches stays, and many nodes are only made to copy. */
  connect() {
    this.resizes.observe(this.element);
    for (const watched of [document.documentElement, document.body]) {
      this.themes.observe(watched, { attributes: true, attributeFilter: ["style", "class"] });
    }
  }

  disconnect() {
    this.resizes.disconnect();
    this.themes.disconnect();
  }

  // Showing

  /** Asks for one drawing before the next frame, however many changes come until then. */
  request() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    if (!this.size[0] || !this.size[1]) return;
    if (!this.theme) this.readTheme();
    const scale = this.sharpness ?? 1;
    const [wide, tall] = this.size.map((side) => Math.max(1, Math.round(side * scale)));
    if (this.canvas.width !== wide || this.canvas.height !== tall) {
      this.canvas.width = wide;
      this.canvas.height = tall;
    }
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    draw(this.context, this);
  }

  /** Pixels of the canvas per pixel of the page: the screen's, times the zoom of the graph. */
  sharpen() {
    const zoom = this.element.clientWidth ? this.element.getBoundingClientRect().width / this.element.clientWidth : 1;
    // In halves, so that a slow zoom does not make a new canvas at every step.
    const sharpness = Math.min(SHARPEST, Math.max(1, Math.ceil(window.devicePixelRatio * zoom * 2) / 2));
    if (sharpness !== this.sharpness) {
      this.sharpness = sharpness;
      this.request();
    }
  }

  resize() {
    this.size = [this.element.clientWidth, this.element.clientHeight];
    this.sharpen();
    this.refit();
    this.request();
  }

  refit() {
    const { width, height } = this.editor.layout;
    if (this.shape !== `${width} ${height}`) this.isFitted = true;
    this.shape = `${width} ${height}`;
    if (this.isFitted && this.size[0]) this.view = fitView(width, height, ...this.size);
  }

  fit() {
    this.isFitted = true;
    this.refit();
    this.request();
  }

  zoom(factor, at = [this.size[0] / 2, this.size[1] / 2]) {
    const { width, height } = this.editor.layout;
    const fitted = fitView(width, height, ...this.size);
    this.view = zoomView(this.view, factor, at, fitted.scale * 0.5);
    this.isFitted = false;
    this.request();
  }

  readTheme() {
    const style = getComputedStyle(this.element);
    const read = (name) => style.getPropertyValue(name).trim();
    this.theme = {
      sheet: read("--stage-sheet"),
      grid: read("--stage-grid"),
      line: read("--stage-edge"),
      accent: read("--stage-accent"),
      font: style.fontFamily,
    };
    this.request();
  }

  /** What a screen reader says of the canvas. */
  describe() {
    const { layout, region } = this.editor;
    const box = this.editor.pixelBox(region)?.map(Math.round);
    const [x0, y0, x1, y1] = box ?? [];
    const values = { phrase: region?.phrase || t("unnamed"), x0, y0, x1, y1 };
    const chosen = box
      ? t("Selected: {phrase}, from {x0}, {y0} to {x1}, {y1} pixels.", values)
      : region && t("Selected: {phrase}.", values);
    const { width, height, regions } = layout;
    const size = t("Layout canvas, {width} by {height} pixels, regions: {count}.", {
      width,
      height,
      count: regions.length,
    });
    this.element.setAttribute("aria-label", [size, chosen, t("Press ? for the keys.")].filter(Boolean).join(" "));
  }

  // The pointer

  listenToPointer() {
    const { element: surface } = this;
    surface.addEventListener("pointerenter", () => this.sharpen());
    surface.addEventListener("pointerdown", (event) => this.press(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    surface.addEventListener("pointerup", (event) => this.release(event));
    surface.addEventListener("pointercancel", (event) => {
      this.touches.release(event);
      this.cancel();
    });
    surface.addEventListener("pointerleave", () => {
      if (this.gesture) return;
      this.pointer = this.hover = null;
      this.request();
    });
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
    surface.addEventListener("dblclick", () => this.editor.region && this.actions.name());
    surface.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** A point of the page on the surface, whatever the graph's zoom. */
  screenPoint(event) {
    const place = this.element.getBoundingClientRect();
    const zoom = place.width / this.element.clientWidth || 1;
    return [(event.clientX - place.left) / zoom, (event.clientY - place.top) / zoom];
  }

  /** A point of the surface in pixels of the canvas. */
  canvasPoint([x, y]) {
    return [(x - this.view.x) / this.view.scale, (y - this.view.y) / this.view.scale];
  }

  get reach() {
    return (this.isFinger ? FINGER : REACH) / this.view.scale;
  }

  /** The brush's radius in pixels of the canvas. */
  get radius() {
    return (this.editor.brush * Math.max(this.editor.layout.width, this.editor.layout.height)) / 512;
  }

  press(event) {
    const screen = this.screenPoint(event);
    if (this.touches.press(event, screen)) return;
    const isErased = event.pointerType === "pen" && event.button === ERASER;
    if ((event.button > 1 && !isErased) || this.gesture) return;
    this.isFinger = event.pointerType === "touch";
    this.element.focus({ preventScroll: true });
    this.element.setPointerCapture(event.pointerId);
    this.sharpen();
    this.holder = event.pointerId;
    this.gesture = startGesture(this, event, screen, this.canvasPoint(screen), isErased ? "eraser" : this.editor.tool);
    this.editor.hold();
    this.request();
  }

  move(event) {
    const screen = this.screenPoint(event);
    if (this.touches.move(event, screen)) return;
    // Another finger or the mouse beside a pen has no part in what the first one does.
    if (this.gesture && event.pointerId !== this.holder) return;
    this.pointer = this.canvasPoint(screen);
    if (this.gesture) {
      this.gesture.move(this.pointer, event, screen);
    } else {
      this.hover = this.regionAt(this.pointer)?.key ?? null;
      this.setCursor();
    }
    this.request();
  }

  release(event) {
    this.touches.release(event);
    const gesture = this.gesture;
    if (!gesture || event.pointerId !== this.holder) return;
    this.gesture = this.guides = this.draft = null;
    gesture.end(this.canvasPoint(this.screenPoint(event)), event);
    this.stroke = null;
    this.editor.letGo();
    this.setCursor();
    this.request();
  }

  /** Ends a gesture as if it had not been; true where there was one. */
  cancel() {
    if (!this.gesture) return false;
    this.gesture = this.guides = this.draft = this.stroke = null;
    this.editor.preview(this.editor.history.state);
    this.editor.letGo();
    return true;
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      event.stopPropagation();
      this.zoom(Math.exp(-event.deltaY / 300), this.screenPoint(event));
    } else {
      this.actions.wheel(event);
    }
  }

  setPanning(isPanning) {
    this.isPanning = isPanning;
    this.setCursor();
  }

  setCursor() {
    const handle = this.pointer && this.handleAt(this.pointer);
    let cursor = "crosshair";
    if (this.isPanning) cursor = "grab";
    else if (this.editor.tool === "brush" || this.editor.tool === "eraser") cursor = "none";
    else if (handle) cursor = cursorOf(handle);
    else if (this.editor.tool === "select" && this.hover !== null) cursor = "move";
    this.element.style.cursor = cursor;
  }

  // What lies where

  /** The handle of the selected region at a point (canvas pixels), or null. */
  handleAt(point) {
    return handleOf(this.editor, point, this.reach);
  }

  /** The nearest region at a point; `below` names one to look behind. */
  regionAt(point, below = null) {
    return regionAt(this.editor, point, below);
  }
}
