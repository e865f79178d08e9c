// Which canvas belongs to which node, and that the page shows the right one.
//
// An undo of the graph, a change of the workflow's tab and a step into a subgraph put other nodes in the place of those
// that are shown. The Vue rendering of ComfyUI tells nodes apart by their number only and mounts the element of a widget
// once, so where the numbers agree it goes on to show the element of the node that is gone.

import { feeding } from "./promotion.js";

const MEMORY_MILLISECONDS = 3000; // for which a canvas that left is remembered: the time of an undo
const CHECKS_MILLISECONDS = [0, 60, 300, 1000]; // after a change; the page needs a few frames for its own part

export class Places {
  /** @param shownGraph gives the graph that is on the screen */
  constructor(shownGraph) {
    this.shownGraph = shownGraph;
    this.places = new Map(); // canvas -> {node, name, take}, those that have just left included
    this.left = new Set();
    this.opened = null; // the node of the subgraph that was opened last
  }

  /** The canvases of nodes that are there. */
  get canvases() {
    return [...this.places.keys()].filter((canvas) => !this.left.has(canvas));
  }

  /** The same with their nodes and the names of their inputs. */
  get entries() {
    return this.canvases.map((canvas) => ({ canvas, ...this.places.get(canvas) }));
  }

  /** @param take called before each check, where the text is also kept elsewhere */
  enter(canvas, node, name, take) {
    this.left.delete(canvas);
    this.places.set(canvas, { node, name, take });
    canvas.graphId = node.graph?.id;
    canvas.connect();
    const before = [...this.left]
      .reverse()
      .find((other) => this.isSamePlace(other, canvas) && other.graphId === canvas.graphId);
    if (before) canvas.inherit(before);
    this.settle();
  }

  leave(canvas) {
    if (!this.places.has(canvas)) return;
    this.left.add(canvas);
    canvas.disconnect();
    setTimeout(() => {
      if (this.left.delete(canvas)) this.places.delete(canvas);
    }, MEMORY_MILLISECONDS);
  }

  isSamePlace(...canvases) {
    const [one, other] = canvases.map((canvas) => this.places.get(canvas));
    return String(one.node.id) === String(other.node.id) && one.name === other.name;
  }

  settle() {
    for (const wait of CHECKS_MILLISECONDS) setTimeout(() => this.check(), wait);
  }

  /** Puts canvases that should be shown into the places of those that should not, with the texts that count. */
  check() {
    const graph = this.shownGraph();
    const isOfGraph = (canvas) => !this.left.has(canvas) && this.places.get(canvas).node.graph === graph;
    const stale = [...this.places.keys()].filter((canvas) => canvas.element.isConnected && !isOfGraph(canvas));
    for (const { take } of this.entries) take?.();
    for (const canvas of this.canvases) {
      if (!isOfGraph(canvas)) continue;
      canvas.follow(this.around(canvas)?.value ?? null);
      if (canvas.element.isConnected) continue;
      stale.find((other) => this.isSamePlace(other, canvas))?.element.replaceWith(canvas.element);
    }
  }

  /** The outermost canvas that feeds this one from the node of a subgraph; of several nodes, the one last opened. */
  around(canvas) {
    const { node, name } = this.places.get(canvas);
    const slot = feeding(node, name);
    if (!slot) return undefined;
    const hosts = this.entries.filter((entry) => entry.node.subgraph === node.graph && entry.name === slot.name);
    const host = hosts.find((entry) => entry.node === this.opened) ?? hosts[0];
    return host && (this.around(host.canvas) ?? host.canvas);
  }
}
