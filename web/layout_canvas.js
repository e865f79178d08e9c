// Gives the node StageLayoutCanvas its editor in the place of the text box that holds the layout.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { loadTexts } from "./layout_canvas/languages.js";
import { Places } from "./layout_canvas/places.js";
import { nodeInside, Promotion } from "./layout_canvas/promotion.js";
import { LayoutCanvas } from "./layout_canvas/widget.js";

const NODE = "StageLayoutCanvas";
const INPUT = "layout";
const WIDGET = "STAGE_LAYOUT_CANVAS";
const SIZE = [680, 720]; // of a new node
// What they show has boxes or colours of its own.
const DRAWINGS = ["StageLayoutPreview", "StageLayoutScore", "StageSegment", "StageAttentionMaps"];
const LEAST_HEIGHT = 380;
const PAUSE_MILLISECONDS = 500; // after which typing counts as done
const READER = "/stagecraft/read_layout"; // of the server, see core/comfy/layout_reader.py
const FOLDER = "stagecraft"; // below ComfyUI's input folder, for reference pictures

const OPTIONS = { getMinHeight: () => LEAST_HEIGHT, hideOnZoom: false, margin: 6 };

const places = new Places(() => app.canvas?.graph);
const promotion = new Promotion({ type: WIDGET, makeCanvas, options: OPTIONS, places, size: SIZE });

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./layout_canvas/style.css", import.meta.url).href;
  document.head.append(link);
}

async function upload(file) {
  const body = new FormData();
  // A pasted picture is always called image.png; the time keeps them apart.
  const name = file.name && file.name !== "image.png" ? file.name : `pasted-${Date.now()}.png`;
  body.append("image", file, name);
  body.append("subfolder", FOLDER);
  body.append("type", "input");
  const response = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const kept = await response.json();
  return kept.subfolder ? `${kept.subfolder}/${kept.name}` : kept.name;
}

/** Lets the server read a pasted text as the node Layout does: {layout, whole} or {error}. */
async function read(text, width, height) {
  const body = JSON.stringify({ text, width, height });
  const response = await api.fetchApi(READER, { method: "POST", body });
  return response.json();
}

function urlOf({ filename, subfolder = "", type = "output" }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/** A node that has run; in a subgraph it is called "the number of the subgraph's node:its own". */
function nodeCalled(name) {
  let graph = app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
  let node = null;
  for (const id of String(name).split(":")) {
    node = graph?.getNodeById(/^\d+$/.test(id) ? Number(id) : id);
    graph = node?.subgraph;
  }
  return node;
}

const typeOf = (node) => node?.comfyClass ?? node?.type;

/** Lets ComfyUI notice a step, so that it is saved and can be undone with the graph. */
function noteStep() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState?.();
}

/** A canvas that tells ComfyUI of every step; `keep` is given each new text, `finish` notes a step that still waits. */
function makeCanvas(text, keep) {
  let pause = null;
  const note = () => {
    clearTimeout(pause);
    pause = null;
    noteStep();
  };
  const finish = () => pause !== null && note();
  const canvas = new LayoutCanvas({
    changed: (goesOn) => {
      keep(canvas.value);
      clearTimeout(pause);
      // A word is one step for the graph too, not one for every letter.
      if (goesOn) pause = setTimeout(note, PAUSE_MILLISECONDS);
      else note();
    },
    upload,
    urlOf,
    read,
    // Over the canvas the wheel still zooms the graph, as everywhere else on a node.
    wheel: (event) => {
      if (!window.LiteGraph?.vueNodesMode) app.canvas.processMouseWheel(event);
    },
  });
  canvas.value = text;
  // ComfyUI saves the last step that it noted, so nothing may wait any longer when Ctrl + S is on its way.
  const commands = ["Control", "Meta"];
  canvas.element.addEventListener(
    "keydown",
    (event) => (event.ctrlKey || event.metaKey || commands.includes(event.key)) && finish(),
    true,
  );
  canvas.element.addEventListener("focusout", finish);
  return { canvas, finish };
}

function addCanvas(node, name, [, { default: text = "" } = {}]) {
  let widget = null;
  const { canvas, finish } = makeCanvas(text, (changed) => widget?.callback?.(changed));
  widget = node.addDOMWidget(name, WIDGET, canvas.element, {
    ...OPTIONS,
    getValue: () => canvas.value,
    setValue: (text) => {
      canvas.value = text;
    },
  });
  promotion.prepare(widget, node);
  const { onAdded, onConnectionsChange, onExecuted, onRemoved } = node;
  node.onAdded = function () {
    places.enter(canvas, node, name);
    return onAdded?.apply(this, arguments);
  };
  node.onConnectionsChange = function () {
    places.settle();
    return onConnectionsChange?.apply(this, arguments);
  };
  node.onExecuted = function (output) {
    canvas.takeOutput(output);
    return onExecuted?.apply(this, arguments);
  };
  node.onRemoved = function () {
    finish();
    places.leave(canvas);
    return onRemoved?.apply(this, arguments);
  };
  return { widget, minWidth: SIZE[0], minHeight: SIZE[1] };
}

/** Gives what a node has sent after a run also to the canvases that it has on the nodes of subgraphs around it. */
function passOn(output, name, run) {
  const node = nodeCalled(name);
  const around = String(name).split(":").slice(0, -1);
  if (typeOf(node) !== NODE) return;
  const [ran] = output?.stage_ran ?? [];
  for (const { canvas, node: host, name: input } of places.entries) {
    const isAround = host.subgraph && around.includes(String(host.id)) && nodeInside(host, input) === node;
    if (isAround) canvas.takeOutput(output);
    if (ran && (isAround || host === node)) canvas.attention.noteRun(ran, run);
  }
}

/** Gives attention maps to the canvas whose layout they are of; to all where there is none, which say so. */
function giveMaps(maps, run) {
  const own = places.canvases.filter(({ editor }) => maps.layout && editor.ran?.layout === maps.layout);
  for (const canvas of own.length ? own : places.canvases) canvas.attention.take(maps, run);
}

app.registerExtension({
  name: "Stagecraft.LayoutCanvas",
  async init() {
    await loadTexts(api);
  },
  getCustomWidgets: () => ({ [WIDGET]: addCanvas }),
  beforeRegisterNodeDef(_, definition) {
    if (definition.name !== NODE) return;
    const input = definition.input.required?.[INPUT] ?? definition.input.optional?.[INPUT];
    // It stays a text for links and for the server; only what is shown for it is another thing.
    if (input) input[1] = { ...input[1], widgetType: WIDGET };
  },
  nodeCreated(node) {
    if (node.subgraph) promotion.watch(node);
  },
  setup() {
    addStyle();
    const page = app.canvas?.canvas;
    page?.addEventListener("litegraph:set-graph", () => places.settle());
    page?.addEventListener("subgraph-opened", ({ detail }) => {
      places.opened = detail?.fromNode;
      places.settle();
    });
    api.addEventListener("executed", ({ detail }) => {
      passOn(detail?.output, detail?.node, detail?.prompt_id);
      for (const maps of detail?.output?.stage_maps ?? []) giveMaps(maps, detail.prompt_id);
      const images = detail?.output?.images;
      if (!images?.length || detail.output.animated?.some(Boolean) || DRAWINGS.includes(typeOf(nodeCalled(detail.node)))) return;
      for (const canvas of places.canvases) canvas.pictures.showResult(images, detail.prompt_id);
    });
  },
});
