// Puts the editor together: one element to show, one text to keep.

import { Attention, mapNote } from "./attention.js";
import { element, icon } from "./dom.js";
import { Editor } from "./editor.js";
import { Importer } from "./importer.js";
import { handleKey } from "./keyboard.js";
import { t } from "./languages.js";
import { List } from "./list.js";
import { OfferLine, readOffer, taken } from "./offer.js";
import { Pictures } from "./pictures.js";
import { toData } from "./state.js";
import { Surface } from "./surface.js";
import { openHelp, Toolbar } from "./toolbar.js";
import { Trouble } from "./trouble.js";
import { FullWindow } from "./window.js";

const NOTICE_SECONDS = 6;
const isField = (target) => target.matches?.("input:not([type=range]):not([type=color]), textarea, select");

export class LayoutCanvas {
  /** @param host {changed(goesOn), upload(file), urlOf(image), wheel(event), read(text, width, height)} */
  constructor(host) {
    this.own = null; // its own text, while it shows another's
    this.editor = new Editor(host);
    this.pictures = new Pictures(this.editor, host);
    this.attention = new Attention(this.editor, this.pictures);
    this.importer = new Importer(this.editor);
    this.surface = new Surface(this.editor, {
      name: () => this.list.focusName(),
      help: () => openHelp(this.main, () => this.focus()),
      toggle: (shown) => {
        this.editor.shows[shown] = !this.editor.shows[shown];
        this.editor.tell("view", "tool");
      },
      window: () => this.window.toggle(),
      leaveWindow: () => this.window.close(),
      isInWindow: () => Boolean(this.window?.isOpen), // asked for before there is one
      wheel: (event) => this.window.isOpen || host.wheel(event),
    });
    this.list = new List(this.editor, this.pictures, { focus: () => this.focus() });
    this.toolbar = new Toolbar(this.editor, this.surface, this.menuEntries());
    this.offerLine = new OfferLine(this.editor, () => this.takeOver());
    this.note = element("div", { class: "stage-note", role: "status" });
    this.surface.element.append(this.offerLine.element, this.note);
    this.status = element("div", { class: "stage-status", role: "status", "aria-live": "polite" });
    this.left = element("div", { class: "stage-left" }, this.surface.element, this.status);
    this.main = element("div", { class: "stage-main" }, this.left, this.list.element);
    // The empty title keeps the input's long tooltip from following the mouse over the canvas.
    this.body = element(
      "div",
      { class: "stage-canvas", role: "group", "aria-label": t("Layout canvas"), title: "" },
      this.toolbar.element,
      this.main,
    );
    // The second class is ComfyUI's own: the Vue rendering gives such a widget all the height that the node has.
    this.element = element("div", { class: "stage-holder widget-expands" }, this.body);
    this.window = new FullWindow(this.element, this.body, {
      focus: () => this.focus(),
      changed: () => this.editor.tell("view", "tool"),
    });
    this.trouble = new Trouble(this.editor, this.main, () => {
      this.surface.cancel(); // it would not hear the end of a gesture any more
    });
    this.editor.listen((kinds) => this.update(kinds));
    this.listen();
    this.update(new Set(["text", "layout"]));
  }

  /** The text that the node keeps and the server gets. */
  get value() {
    return this.own ?? this.editor.text;
  }

  set value(text) {
    if (this.own !== null) this.own = String(text ?? "");
    else if (text !== this.editor.text) this.editor.read(String(text ?? ""));
  }

  /** Shows the text of the canvas that feeds this one, and takes no changes meanwhile; null ends that. */
  follow(text) {
    if (text === null && this.own === null) return;
    const own = this.value;
    this.own = text === null ? null : own;
    this.element.inert = this.body.inert = text !== null;
    if (text !== null) this.window.close();
    if ((text ?? own) !== this.editor.text) this.editor.read(text ?? own);
    this.showStatus();
  }

  focus() {
    this.surface.element.focus({ preventScroll: true });
  }

  connect() {
    this.surface.connect();
  }

  disconnect() {
    this.window.close();
    this.surface.disconnect();
    clearTimeout(this.timer);
  }

  /** Goes on where the canvas of the same node stopped, as after an undo of the graph. */
  inherit({ editor }) {
    const { tool, brush, softness, result, picture, offer, maps, ran, shows } = editor;
    Object.assign(this.editor, { tool, brush, softness, result, picture, offer, maps, ran, shows });
    this.editor.tell("tool", "view");
  }

  /** Takes what the node sent after a run. */
  takeOutput(output) {
    if (!output) return;
    if (output.stage_image?.length) this.pictures.showConnected(output.stage_image[0]);
    else this.editor.picture = null;
    this.takeOffer(output.stage_start?.length ? String(output.stage_start[0]) : null);
    if (output.stage_warnings?.length) this.editor.say(String(output.stage_warnings[0]));
    this.editor.tell("view", "tool");
  }

  async takeOffer(text) {
    const { offer } = this.editor;
    // Of a run that brought the same, what somebody has put away stays away.
    if (text === null || text !== offer?.text)
      this.editor.offer = await readOffer(text, () => this.editor.tell("view"));
    this.editor.tell("view", "tool");
  }

  takeOver() {
    this.editor.commit(taken(this.editor.offer, this.editor.layout), { select: null });
    this.editor.tell("view");
    this.focus();
    this.editor.say(t("The connected things are yours now: name them, move them, paint on them. Undo brings them back."));
  }

  listen() {
    const root = this.body;
    // The graph editor must neither drag the node nor read keys while somebody draws.
    for (const name of ["pointerdown", "pointermove", "pointerup"])
      root.addEventListener(name, (event) => event.stopPropagation());
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("paste", (event) => this.paste(event));
    root.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.stopPropagation();
    });
    root.addEventListener("drop", (event) => this.drop(event));
  }

  key(event) {
    const isCommand = event.ctrlKey || event.metaKey;
    if (isField(event.target)) {
      if (event.key === "Escape") {
        event.preventDefault();
        this.focus();
      }
      if (!isCommand) event.stopPropagation();
    } else if (!this.surface.element.contains(event.target)) {
      // A button that has the focus keeps the keys that press it or leave it.
      if (["Enter", " ", "Tab"].includes(event.key) || event.key.startsWith("Arrow")) event.stopPropagation();
      else handleKey(event, this.surface);
    }
  }

  paste(event) {
    const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    if (!image && isField(event.target)) return event.stopPropagation();
    event.preventDefault();
    event.stopPropagation();
    if (image) this.useImage(image, this.editor.region);
    else this.import(event.clipboardData?.getData("text") ?? "");
  }

  async drop(event) {
    const file = event.dataTransfer?.files?.[0];
    if (!file) return;
    event.preventDefault();
    event.stopPropagation();
    const below = this.surface.regionAt(this.surface.canvasPoint(this.surface.screenPoint(event)));
    if (file.type.startsWith("image/")) this.useImage(file, below ?? this.editor.region);
    else this.import(await file.text());
  }

  useImage(file, region) {
    if (region) this.pictures.useReference(region.key, file);
    else this.editor.say(t("Select the region that the picture belongs to, then paste it again."));
  }

  import(text) {
    return this.importer.import(text);
  }

  menuEntries() {
    const { editor } = this;
    const text = () => JSON.stringify(toData(editor.layout), null, 1);
    return [
      {
        text: t("Import…"),
        hint: t("Whatever the node Layout reads: lines, sentences, JSON of many programs, a language model's answer"),
        isShown: () => true,
        act: () => this.importer.choose(),
      },
      {
        text: t("Export as JSON"),
        hint: t("Saves the layout as a file"),
        isShown: () => editor.problem === null,
        act: () => save("layout.json", text()),
      },
      {
        text: t("Copy as JSON"),
        hint: t("Puts the layout into the clipboard"),
        isShown: () => editor.problem === null && Boolean(navigator.clipboard),
        act: () => navigator.clipboard.writeText(text()),
      },
      {
        text: t("Take over the connected layout"),
        hint: t("Draws on with what came in at “start” or “boxes” in the last run"),
        isShown: () => Boolean(editor.offer),
        act: () => this.takeOver(),
      },
      {
        text: t("Canvas size from the picture"),
        hint: t("Takes the size of the connected picture"),
        isShown: () => Boolean(editor.picture),
        act: () => editor.resize(editor.picture.naturalWidth, editor.picture.naturalHeight),
      },
      {
        text: t("Clear all regions"),
        hint: t("Undo brings them back"),
        isShown: () => editor.layout.regions.length > 0,
        act: () => editor.commit({ ...editor.layout, regions: [] }),
      },
    ];
  }

  update(kinds) {
    if (kinds.has("notice")) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.editor.say(""), NOTICE_SECONDS * 1000);
      if (!this.editor.notice) clearTimeout(this.timer);
    }
    if (kinds.has("text") || kinds.has("layout")) this.trouble.show();
    if (!kinds.has("drag")) this.showStatus();
    this.showNote();
  }

  showNote() {
    const text = mapNote(this.editor);
    if (this.note.textContent !== text) this.note.textContent = text;
    this.note.hidden = !text;
  }

  showStatus() {
    const { layout } = this.editor;
    const isFed = this.own !== null;
    const [notice, warnings] = isFed ? ["", []] : [this.editor.notice, this.editor.warnings];
    const [worst] = warnings;
    const count = layout.regions.length;
    const { width, height } = layout;
    const size =
      count === 1
        ? t("1 region on {width} × {height} pixels", { width, height })
        : t("{count} regions on {width} × {height} pixels", { count, width, height });
    const text = notice || worst?.text || size + (isFed ? t(", drawn outside on the subgraph's node") : "");
    if (this.status.dataset.text === text) return;
    this.status.dataset.text = text;
    this.status.classList.toggle("is-warning", !notice && Boolean(worst) && count > 0);
    const words = element("span", { text });
    const more =
      !notice && warnings.length > 1
        ? element("span", { class: "stage-faint", text: t("and {count} more", { count: warnings.length - 1 }) })
        : null;
    this.status.replaceChildren(
      ...(!notice && worst && count ? [icon("warning")] : []),
      words,
      ...(more ? [more] : []),
    );
    this.status.title = notice || warnings.map((warning) => warning.text).join("\n");
  }
}

function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
