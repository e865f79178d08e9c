// Which canvas belongs to which node, and that the page shows the right one.
//
// An undo of the graph, a change of the workflow's tab and a step into a subgraph put other nodes in the place of those
// that are shown. The Vue rendering of ComfyUI tells nodes apart by their number only and mounts the element of a widget
// once, so where the numbers agree it goes on to show the element of the node that is gone.

const MEMORY_MILLISECONDS = 3000; // for which a canvas that left is remembered: the time of an undo
const CHECKS_MILLISECONDS = [0, 60, 300, 1000]; // after a change; the page needs a few frames for its own part

export class Places {
  /** @param shownGraph gives the graph that is on the screen */
  constructor(shownGraph) {
    this.shownGraph = shownGraph;
    this.nodes = new Map(); // canvas -> its node, those that have just left included
    this.left = new Set();
  }

  /** The canvases of nodes that are there. */
  get canvases() {
    return [...this.nodes.keys()].filter((canvas) => !this.left.has(canvas));
  }

  enter(canvas, node) {
    this.left.delete(canvas);
    this.nodes.set(canvas, node);
    canvas.graphId = node.graph?.id;
    canvas.connect();
    const before = [...this.left]
      .reverse()
      .find((other) => this.isSameNode(other, canvas) && other.graphId === canvas.graphId);
    if (before) canvas.inherit(before);
    this.settle();
  }

  leave(canvas) {
    this.left.add(canvas);
    canvas.disconnect();
    setTimeout(() => {
      if (this.left.delete(canvas)) this.nodes.delete(canvas);
    }, MEMORY_MILLISECONDS);
  }

  isSameNode(one, other) {
    return String(this.nodes.get(one).id) === String(this.nodes.get(other).id);
  }

  settle() {
    for (const wait of CHECKS_MILLISECONDS) setTimeout(() => this.check(), wait);
  }

  /** Puts canvases that should be shown into the places of those that should not. */
  check() {
    const graph = this.shownGraph();
    const isOfGraph = (canvas) => !this.left.has(canvas) && this.nodes.get(canvas).graph === graph;
    const stale = [...this.nodes.keys()].filter((canvas) => canvas.element.isConnected && !isOfGraph(canvas));
    for (const canvas of this.canvases) {
      if (canvas.element.isConnected || !isOfGraph(canvas)) continue;
      stale.find((other) => this.isSameNode(other, canvas))?.element.replaceWith(canvas.element);
    }
  }
}
