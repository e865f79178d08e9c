// A layout that is promoted to the node of a subgraph: a canvas of its own there, and what the node inside shows.
//
// ComfyUI feeds a promoted input from the subgraph's node, and each such node keeps a text of its own. Its older front
// ends make the widget for it by asking the one inside for a copy, and let both show the same element. The newer ones
// do that for text boxes only, put a bare value in the place of every other widget, which shows nothing, and hide the
// widget inside. So both get a widget with a canvas from here, and the canvas inside shows what the one outside has.

const USABLE_WIDTH = 300; // a node that is narrower was made for a line of text

/** The input of a subgraph that feeds an input of a node inside it, or undefined. */
export function feeding(node, name) {
  const graph = node.graph;
  const input = node.inputs?.find((each) => (each.widget?.name ?? each.name) === name);
  const link = graph?.inputNode && input?.link != null ? graph.getLink(input.link) : null;
  return link && link.origin_id === graph.inputNode.id ? graph.inputNode.slots[link.origin_slot] : undefined;
}

/** The node at the end of what an input of a subgraph's node feeds, through any number of subgraphs. */
export function nodeInside(host, name) {
  let node = host;
  while (node?.subgraph) {
    const { subgraph } = node;
    const slot = subgraph.inputNode.slots.find((each) => each.name === name);
    const link = slot?.linkIds.length ? subgraph.getLink(slot.linkIds[0]) : null;
    node = link ? subgraph.getNodeById(link.target_id) : null;
    name = node?.inputs[link.target_slot].name;
  }
  return node;
}

export class Promotion {
  /**
   * @param type of the widget
   * @param makeCanvas makes a canvas; takes its first text and what keeps a later one, gives {canvas, finish}
   * @param options of the widget
   * @param places where canvases are
   * @param size of a node that is large enough
   */
  constructor({ type, makeCanvas, options, places, size }) {
    Object.assign(this, { type, makeCanvas, options, places, size });
    this.latest = new WeakMap(); // node of a subgraph -> its widgets, by the names of their inputs
  }

  /** Prepares a widget inside: for older front ends, which ask it for a copy, and to be shown while it is fed. */
  prepare(widget, node) {
    widget.createCopyForNode = (host) => this.widgetFor(host, widget.name, { value: widget.value });
    const isFed = () => Boolean(feeding(node, widget.name));
    const suppressed = inherited(widget, "connectionSuppressed");
    if (!suppressed?.set) return;
    let isDisabled = false;
    Object.defineProperties(widget, {
      connectionSuppressed: {
        configurable: true,
        get: () => suppressed.get.call(widget),
        set: (value) => suppressed.set.call(widget, value && !isFed()),
      },
      computedDisabled: {
        configurable: true,
        get: () => isDisabled && !isFed(),
        set: (value) => (isDisabled = value),
      },
    });
  }

  /** Watches the node of a subgraph, as newer front ends promote and demote. */
  watch(host) {
    const promote = () => this.promote(host);
    const { onAdded } = host;
    host.onAdded = function () {
      const result = onAdded?.apply(this, arguments);
      promote();
      return result;
    };
    host.subgraph.events.addEventListener("widget-promoted", ({ detail }) => detail.subgraphNode === host && promote());
    promote();
  }

  promote(host) {
    // A node that is only made to be copied has no place yet.
    if (host.graph?.getNodeById(host.id) !== host) return;
    for (const input of host.inputs) {
      const bare = input._widget;
      if (bare?.type === this.type && !bare.element) input._widget = this.widgetFor(host, bare.name, bare);
    }
  }

  /** @param kept has the text as its `value`, which others may change */
  widgetFor(host, name, kept) {
    const { DOMWidgetImpl, addWidget } = window.comfyAPI.domWidget;
    let widget = null;
    const { canvas, finish } = this.makeCanvas(kept.value, (text) => {
      kept.value = text;
      widget?.callback?.(text);
    });
    const take = () => (canvas.value = kept.value);
    widget = new DOMWidgetImpl({
      node: host,
      name,
      type: this.type,
      element: canvas.element,
      options: {
        ...this.options,
        getValue: () => kept.value,
        setValue: (text) => {
          kept.value = text;
          take();
        },
        onDraw: take,
      },
    });
    this.prepare(widget, host);
    const { places, size } = this;
    let isShown = false;
    const enter = () => {
      if (this.latest.get(host)[name] !== widget || host.graph?.getNodeById(host.id) !== host) return;
      places.enter(canvas, host, name, take);
      if (isShown) return;
      isShown = true;
      // It is the input's widget already; what is wanted is that the page has a place for its element.
      addWidget(Object.create(host, { addCustomWidget: { value: (added) => added } }), widget);
      if (host.size[0] < USABLE_WIDTH) host.setSize([...size]);
    };
    const leave = () => {
      finish();
      places.leave(canvas);
    };
    const { onAdded, onRemoved } = host;
    const { onRemove } = widget;
    host.onAdded = function () {
      const result = onAdded?.apply(this, arguments);
      enter();
      return result;
    };
    host.onRemoved = function () {
      leave();
      return onRemoved?.apply(this, arguments);
    };
    widget.onRemove = function () {
      leave();
      return onRemove?.apply(this, arguments);
    };
    // A node that is configured twice makes its widgets twice, and drops the first ones without a word.
    const latest = this.latest.get(host) ?? {};
    latest[name]?.onRemove();
    this.latest.set(host, { ...latest, [name]: widget });
    enter();
    return widget;
  }
}

function inherited(object, name) {
  for (let at = object; at; at = Object.getPrototypeOf(at)) {
    const found = Object.getOwnPropertyDescriptor(at, name);
    if (found) return found;
  }
  return null;
}
