// The panel beside the canvas: the canvas' own settings, and the regions from near to far.

import { button, element, isHistoryOfOthers } from "./dom.js";
import { t } from "./languages.js";
import { Row } from "./rows.js";
import { LARGEST_SIDE, SMALLEST_SIDE } from "./state.js";

const PRESETS = [
  ["1 : 1", 1, 1],
  ["4 : 3", 4, 3],
  ["3 : 4", 3, 4],
  ["3 : 2", 3, 2],
  ["2 : 3", 2, 3],
  ["16 : 9", 16, 9],
  ["9 : 16", 9, 16],
  ["21 : 9", 21, 9],
];
const STEP = 64; // sides of presets are multiples of this, which every model takes

export class List {
  constructor(editor, pictures, actions) {
    Object.assign(this, { editor, pictures, actions, rows: new Map() });
    this.rowList = element("ol", { class: "stage-rows", "aria-label": t("Regions, nearest first") });
    this.empty = element("p", {
      class: "stage-empty",
      text: t("Nothing here yet. Drag on the canvas to say where something goes."),
    });
    this.count = element("span", { class: "stage-count" });
    const heading = element(
      "div",
      { class: "stage-heading" },
      element("span", { text: t("Regions") }),
      this.count,
      element("span", { class: "stage-space" }),
      element("span", { class: "stage-faint", text: t("nearest first") }),
    );
    this.element = element("div", { class: "stage-panel" }, this.makeCanvas(), heading, this.rowList, this.empty);
    editor.listen((kinds) => {
      if (kinds.has("layout") || kinds.has("selection")) this.update();
    });
    this.update();
  }

  makeCanvas() {
    const { editor } = this;
    const side = (name, label, hint) => {
      const made = element("input", {
        type: "number",
        min: SMALLEST_SIDE,
        max: LARGEST_SIDE,
        step: 8,
        "aria-label": label,
        title: hint,
        class: "stage-number",
      });
      made.addEventListener("change", () => {
        editor.resize(
          ...(name === "width"
            ? [Number(made.value), editor.layout.height]
            : [editor.layout.width, Number(made.value)]),
        );
        made.value = editor.layout[name];
      });
      return made;
    };
    this.width = side("width", t("Width"), t("Width of the canvas in pixels"));
    this.height = side("height", t("Height"), t("Height of the canvas in pixels"));
    this.preset = element("select", {
      "aria-label": t("Aspect"),
      title: t("Aspect of the canvas; the area stays about the same"),
    });
    this.preset.append(
      element("option", { value: "", text: t("free") }),
      ...PRESETS.map(([name]) => element("option", { value: name, text: name })),
    );
    this.preset.addEventListener("change", () => this.takePreset());
    const size = element(
      "div",
      { class: "stage-size" },
      this.width,
      element("span", { class: "stage-faint", text: "×" }),
      this.height,
      button("swap", t("Swap width and height"), () => editor.resize(editor.layout.height, editor.layout.width)),
      this.preset,
    );
    this.prompt = this.words(
      "prompt",
      t("Prompt of the whole picture; empty: the phrases and the background, joined"),
      t("Prompt of the whole picture"),
      "textarea",
      { rows: 2 },
    );
    this.background = this.words(
      "background",
      t("Prompt of the background, such as: on a green meadow"),
      t("Background"),
      "input",
      { type: "text", autocomplete: "off" },
    );
    return element("div", { class: "stage-canvas-settings" }, size, this.prompt, this.background);
  }

  words(name, label, placeholder, tag, properties) {
    const made = element(tag, { placeholder, "aria-label": label, title: label, spellcheck: "true", ...properties });
    made.addEventListener("input", (event) => {
      if (isHistoryOfOthers(event)) return this.editor.tell("layout");
      this.editor.commit({ ...this.editor.layout, [name]: made.value }, { tag: name });
    });
    made.addEventListener("blur", () => this.editor.history.seal());
    return made;
  }

  takePreset() {
    const chosen = PRESETS.find(([name]) => name === this.preset.value);
    if (!chosen) return;
    const { width, height } = this.editor.layout;
    const area = width * height;
    const ratio = chosen[1] / chosen[2];
    const rounded = (value) => Math.max(STEP, Math.round(value / STEP) * STEP);
    this.editor.resize(rounded(Math.sqrt(area * ratio)), rounded(Math.sqrt(area / ratio)));
  }

  update() {
    const { layout, selected, warnings } = this.editor;
    for (const [made, value] of [
      [this.width, layout.width],
      [this.height, layout.height],
      [this.prompt, layout.prompt],
      [this.background, layout.background],
    ]) {
      if (document.activeElement !== made && made.value !== String(value)) made.value = value;
    }
    const ratio = layout.width / layout.height;
    const near = PRESETS.find(([, wide, tall]) => Math.abs(ratio / (wide / tall) - 1) < 0.06);
    this.preset.value = near ? near[0] : "";
    const count = layout.regions.length;
    this.count.textContent = String(count);
    this.empty.hidden = count > 0;
    const rows = layout.regions.map((region) => this.rows.get(region.key) ?? new Row(this, region)).reverse();
    this.rows = new Map(rows.map((row) => [row.key, row]));
    // Rows are only put in anew where their order has changed, because that takes the focus away.
    if (
      rows.length !== this.rowList.children.length ||
      rows.some((row, i) => this.rowList.children[i] !== row.element)
    ) {
      const focused = this.rowList.contains(document.activeElement) ? document.activeElement : null;
      this.rowList.replaceChildren(...rows.map((row) => row.element));
      focused?.focus({ preventScroll: true });
    }
    const warningOf = new Map([...warnings].reverse().map((warning) => [warning.key, warning]));
    rows.forEach((row, index) => {
      const region = layout.regions[count - 1 - index];
      row.update(
        region,
        region.key === selected,
        warningOf.get(region.key),
        t("{place} of {count} from near to far", { place: index + 1, count }),
      );
    });
    if (selected !== this.shown) this.rows.get(selected)?.element.scrollIntoView?.({ block: "nearest" });
    this.shown = selected;
  }

  /** Puts the cursor into the selected region's name. */
  focusName() {
    const row = this.rows.get(this.editor.selected);
    row?.phrase.focus({ preventScroll: true });
    row?.phrase.select();
  }

  /** Drags a row to another place in the painter's order. */
  startDrag(event, row) {
    event.preventDefault();
    row.grip.setPointerCapture(event.pointerId);
    row.element.classList.add("is-dragged");
    const isAbove = (child, pointer) => {
      const { top, height } = child.getBoundingClientRect();
      return pointer.clientY > top + height / 2;
    };
    const move = (pointer) => {
      // The others go around the row that is held: to take that one out of the page would end the drag.
      let other = row.element.previousElementSibling;
      while (other && !isAbove(other, pointer)) {
        row.element.after(other);
        other = row.element.previousElementSibling;
      }
      other = row.element.nextElementSibling;
      while (other && isAbove(other, pointer)) {
        row.element.before(other);
        other = row.element.nextElementSibling;
      }
    };
    const done = new AbortController();
    const end = (pointer) => {
      done.abort();
      row.element.classList.remove("is-dragged");
      const at = [...this.rowList.children].indexOf(row.element);
      if (pointer.type === "pointerup") this.editor.reorder(row.key, this.editor.layout.regions.length - 1 - at);
      this.update();
    };
    for (const [name, listener] of [
      ["pointermove", move],
      ["pointerup", end],
      ["pointercancel", end],
    ]) {
      row.grip.addEventListener(name, listener, { signal: done.signal });
    }
  }
}
