// Two fingers on the canvas: they move and zoom the view, and end what the first one had begun as if it had not been.

import { fitView, zoomView } from "./geometry.js";

const middle = ([one, other]) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
const distance = ([one, other]) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;

export class Touches {
  constructor(surface) {
    this.surface = surface;
    this.points = new Map(); // a finger's number -> where it is on the surface
    this.isPinching = false; // until both fingers are lifted, so that the last one draws nothing
  }

  /** Takes a finger that comes down; true where it belongs to a pair. */
  press(event, screen) {
    if (event.pointerType !== "touch") return this.isPinching;
    this.points.set(event.pointerId, screen);
    if (this.points.size === 2) {
      this.surface.cancel();
      this.isPinching = true;
      this.surface.element.setPointerCapture(event.pointerId);
    }
    return this.isPinching;
  }

  move(event, screen) {
    if (!this.points.has(event.pointerId)) return this.isPinching;
    const before = [...this.points.values()];
    this.points.set(event.pointerId, screen);
    if (this.isPinching && this.points.size === 2) this.pinch(before, [...this.points.values()]);
    return this.isPinching;
  }

  release(event) {
    this.points.delete(event.pointerId);
    if (!this.points.size) this.isPinching = false;
  }

  pinch(before, after) {
    const { surface } = this;
    const { width, height } = surface.editor.layout;
    const [from, to] = [middle(before), middle(after)];
    const least = fitView(width, height, ...surface.size).scale * 0.5;
    const view = zoomView(surface.view, distance(after) / distance(before), from, least);
    surface.view = { ...view, x: view.x + to[0] - from[0], y: view.y + to[1] - from[1] };
    surface.isFitted = false;
    surface.request();
  }
}
