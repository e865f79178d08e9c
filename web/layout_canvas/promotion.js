// A layout that is promoted to the node of a subgraph: a canvas of its own there, and what the node inside shows.
//
// ComfyUI feeds a promoted input from the subgraph's node, and each such node keeps a text of its own here. What front
// ends make of the widget differs. The oldest ask the one inside for a copy, and let both show the same element. Later
// ones list views of the widgets inside, which keep no value of their own and are saved with nobody, and list them
// whatever widget the input has. The newest do the first for text boxes only, put a bare value in the place of every
// other widget, which shows nothing, and hide the widget inside. So each input gets a widget with a canvas from here,
// the list of widgets shows it, its text is kept here where nobody else does, and the canvas inside shows that too.

const USABLE_WIDTH = 300; // a node that is narrower was made for a line of text
const SOURCE = ["sourceNodeId", "sourceWidgetName"]; // what a view says of the widget that it shows

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
    this.made = new WeakMap(); // widget from here -> the view that it replaces, if any
    this.texts = new WeakMap(); // node of a subgraph -> the texts that nobody else keeps, by the names of their inputs
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
    const isOfHost = ({ detail }) => detail.subgraphNode === host;
    host.subgraph.events.addEventListener("widget-promoted", (event) => isOfHost(event) && promote());
    host.subgraph.events.addEventListener(
      "widget-demoted",
      (event) => isOfHost(event) && this.demoted(host, event.detail.widget),
    );
    this.list(host);
    this.keep(host);
    promote();
  }

  promote(host) {
    // A node that is only made to be copied has no place yet.
    if (host.graph?.getNodeById(host.id) !== host) return;
    for (const input of host.inputs)
      if (this.isBare(host, input)) input._widget = this.widgetFor(host, input.name, this.keptFor(host, input));
    // Whoever watches the list of widgets has to be told, and is by being asked.
    void host.widgets;
  }

  /** Whether an input of a subgraph's node has what the front end made for a canvas. */
  isBare(host, { _widget: bare }) {
    return Boolean(bare) && !this.made.has(bare) && seen(host, bare)?.type === this.type;
  }

  /** What has the text of an input as its `value`: the front end's widget, or a place here where that keeps none. */
  keptFor(host, { name, _widget: bare }) {
    if (!isView(bare)) return bare;
    const texts = this.textsOf(host);
    texts[name] ??= seen(host, bare)?.value;
    return {
      bare,
      get value() {
        return texts[name];
      },
      set value(text) {
        texts[name] = text;
        bare.value = text;
      },
    };
  }

  textsOf(host) {
    if (!this.texts.has(host)) this.texts.set(host, {});
    return this.texts.get(host);
  }

  /** Lists the widgets from here where the front end lists what it made for their inputs itself. */
  list(host) {
    const found = Object.getOwnPropertyDescriptor(host, "widgets");
    if (!found?.get) return;
    const get = () => {
      const all = found.get.call(host);
      const widgets = host.inputs.map((input) => input._widget);
      const missing = widgets.filter((each) => this.made.has(each) && !all.includes(each));
      if (!missing.length) return all;
      return all.map((each) => {
        const index = this.made.has(each) ? -1 : missing.findIndex((widget) => this.standsFor(widget, each));
        return index < 0 ? each : missing.splice(index, 1)[0];
      });
    };
    Object.defineProperty(host, "widgets", { ...found, get });
  }

  /** Whether a widget from here takes the place of a listed one, whose name may be that of the widget inside. */
  standsFor(widget, listed) {
    const bare = this.made.get(widget);
    return bare ? isView(listed) && SOURCE.every((key) => listed[key] === bare[key]) : listed.name === widget.name;
  }

  /** Saves and loads the texts that are kept here, where and as other front ends do. */
  keep(host) {
    const promoted = () => host.inputs.filter((input) => input._widget);
    const isKept = (input) =>
      Boolean(this.made.get(input._widget)) || (isView(input._widget) && this.isBare(host, input));
    const { onConfigure, onSerialize } = host;
    host.onConfigure = (saved) => {
      for (const [index, input] of promoted().entries()) {
        const text = saved.widgets_values?.[index];
        if (typeof text === "string" && isKept(input)) this.textsOf(host)[input.name] = text;
      }
      this.places.settle();
      return onConfigure?.call(host, saved);
    };
    host.onSerialize = (saved) => {
      const texts = this.textsOf(host);
      if (promoted().some(isKept))
        saved.widgets_values = promoted().map(({ name, _widget }) => texts[name] ?? _widget.value ?? null);
      return onSerialize?.call(host, saved);
    };
  }

  /** Ends a widget from here that its input has lost, with what was listed for it. */
  demoted(host, widget) {
    if (!this.made.has(widget) || host.inputs.some((input) => input._widget === widget)) return;
    widget.onRemove();
    delete this.textsOf(host)[widget.name];
    if (!this.made.get(widget)) return;
    for (const each of host.widgets.filter((listed) => this.standsFor(widget, listed))) host.removeWidget(each);
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
    this.made.set(widget, kept.bare);
    if (kept.bare) widget.serialize = false;
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

/** Whether a widget is a view of one inside. */
const isView = (widget) => SOURCE.every((key) => key in widget) && widget.serialize === false;

/** What a view shows, through any number of them; it itself may still tell what the one inside was made with. */
function seen(host, widget) {
  while (widget && isView(widget)) {
    const { sourceNodeId, sourceWidgetName } = widget;
    host = host.subgraph?.getNodeById(sourceNodeId);
    widget = host?.widgets?.find((each) => each.name === sourceWidgetName);
  }
  return widget;
}

function inherited(object, name) {
  for (let at = object; at; at = Object.getPrototypeOf(at)) {
    const found = Object.getOwnPropertyDescriptor(at, name);
    if (found) return found;
  }
  return null;
}
