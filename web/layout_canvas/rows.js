// One region in the list: its name, its colour, and, while it is selected, everything else about it.

import { button, element, isHistoryOfOthers, relabel } from "./dom.js";
import { t } from "./languages.js";

/** A field whose edits are one step to undo as long as the focus stays. */
function field(editor, tag, name, label, properties, read) {
  const made = element(tag, { "aria-label": label, spellcheck: "false", ...properties });
  made.dataset.field = name;
  made.addEventListener("input", (event) => {
    if (isHistoryOfOthers(event)) return editor.tell("layout");
    const value = read(made.value);
    if (value !== undefined) editor.change(Number(made.closest("[data-key]").dataset.key), { [name]: value }, name);
  });
  made.addEventListener("blur", () => editor.history.seal());
  return made;
}

const show = (made, value) => {
  // What is being typed is left alone: 1. is on its way to 1.5.
  if (document.activeElement !== made && made.value !== String(value)) made.value = value;
};

export class Row {
  constructor(list, region) {
    const { editor } = list;
    this.list = list;
    this.editor = editor;
    this.key = region.key;
    this.grip = button("grip", t("Drag to put nearer or farther"), null, {
      class: "stage-button stage-grip",
      tabindex: -1,
    });
    this.tint = field(
      editor,
      "input",
      "tint",
      t("Colour of the outline"),
      { type: "color", class: "stage-swatch", title: t("Colour of the outline") },
      (value) => value,
    );
    this.phrase = field(
      editor,
      "input",
      "phrase",
      t("Phrase"),
      { type: "text", class: "stage-phrase", placeholder: t("What is it? a dog"), autocomplete: "off" },
      (value) => value,
    );
    this.warning = element("span", { class: "stage-warning", role: "img" });
    this.eye = button("eye", t("Hide"), () => editor.change(this.key, { hidden: !this.region.hidden }));
    this.lock = button("unlock", t("Lock"), () => editor.change(this.key, { locked: !this.region.locked }));
    this.head = element(
      "div",
      { class: "stage-row-head" },
      this.grip,
      this.tint,
      this.phrase,
      this.warning,
      this.eye,
      this.lock,
    );
    this.element = element(
      "li",
      {
        class: "stage-row",
        "data-key": region.key,
        onpointerdown: () => editor.select(this.key),
        onfocusin: () => editor.select(this.key),
      },
      this.head,
    );
    this.grip.addEventListener("pointerdown", (event) => list.startDrag(event, this));
    this.phrase.addEventListener("keydown", (event) => {
      if (event.key === "Enter") list.actions.focus();
    });
  }

  get region() {
    return this.editor.layout.regions.find((region) => region.key === this.key);
  }

  update(region, isSelected, warning, place) {
    this.element.classList.toggle("is-selected", isSelected);
    this.element.classList.toggle("is-hidden", region.hidden);
    this.element.setAttribute("aria-current", isSelected ? "true" : "false");
    this.element.setAttribute("aria-label", `${region.phrase || t("unnamed")}, ${place}`);
    show(this.tint, region.tint);
    show(this.phrase, region.phrase);
    relabel(this.eye, region.hidden ? "hidden" : "eye", region.hidden ? t("Show (H)") : t("Hide from the run (H)"));
    relabel(this.lock, region.locked ? "lock" : "unlock", region.locked ? t("Unlock (L)") : t("Lock (L)"));
    this.lock.classList.toggle("is-on", region.locked);
    this.eye.classList.toggle("is-on", region.hidden);
    this.warning.hidden = !warning;
    this.warning.classList.toggle("is-urgent", Boolean(warning?.urgent));
    this.warning.title = warning?.text ?? "";
    this.warning.setAttribute("aria-label", warning?.text ?? "");
    if (isSelected) this.updateDetails(region);
    else this.details?.remove();
  }

  updateDetails(region) {
    this.details ??= this.makeDetails();
    if (!this.details.isConnected) this.element.append(this.details);
    show(this.prompt, region.prompt);
    show(this.strength, region.strength);
    show(this.number, region.strength);
    show(this.colour, region.colour);
    this.pick.value = /^#[0-9a-f]{6}$/i.test(region.colour) ? region.colour : "#888888";
    this.list.pictures.showReference(this.reference, region.reference);
    this.dropReference.hidden = !region.reference;
    this.toBox.hidden = !region.mask;
  }

  makeDetails() {
    const { editor, list } = this;
    const number = (value) => (value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : undefined);
    this.prompt = field(
      editor,
      "textarea",
      "prompt",
      t("Longer prompt"),
      { rows: 2, placeholder: t("Longer prompt, for its own layer (optional)"), spellcheck: "true" },
      (value) => value,
    );
    this.strength = field(
      editor,
      "input",
      "strength",
      t("Strength"),
      { type: "range", min: 0, max: 3, step: 0.05 },
      number,
    );
    this.number = field(
      editor,
      "input",
      "strength",
      t("Strength as a number"),
      { type: "number", step: 0.05, class: "stage-number" },
      number,
    );
    const strength = element(
      "label",
      { class: "stage-line", title: t("Multiplies a method's guidance here; 0 switches it off") },
      element("span", { text: t("Strength") }),
      this.strength,
      this.number,
    );
    this.colour = field(
      editor,
      "input",
      "colour",
      t("Colour to pull towards"),
      { type: "text", placeholder: t("no colour"), autocomplete: "off" },
      (value) => value.trim(),
    );
    this.pick = field(
      editor,
      "input",
      "colour",
      t("Pick the colour to pull towards"),
      { type: "color", class: "stage-swatch" },
      (value) => value,
    );
    const colour = element(
      "label",
      { class: "stage-line", title: t("What vision guidance pulls towards: red, #ff8800, or nothing") },
      element("span", { text: t("Pull to") }),
      this.colour,
      this.pick,
    );
    this.reference = element("button", {
      type: "button",
      class: "stage-reference",
      onclick: () => list.pictures.chooseReference(this.key),
    });
    this.dropReference = button("close", t("Remove the reference picture"), () =>
      editor.change(this.key, { reference: "" }),
    );
    const reference = element(
      "div",
      { class: "stage-line" },
      element("span", { text: t("Reference") }),
      this.reference,
      this.dropReference,
    );
    this.toBox = button("box", t("Turn the mask back into a box"), () => editor.change(this.key, { mask: null }));
    const actions = element(
      "div",
      { class: "stage-actions", role: "group", "aria-label": t("Region") },
      button("nearer", t("Nearer (Page Up)"), () => editor.shift(this.key, 1)),
      button("farther", t("Farther (Page Down)"), () => editor.shift(this.key, -1)),
      this.toBox,
      element("span", { class: "stage-space" }),
      button("duplicate", t("Duplicate (Ctrl + D)"), () => editor.duplicate(this.key)),
      button("delete", t("Delete (Delete)"), () => editor.remove(this.key)),
    );
    return element("div", { class: "stage-details" }, this.prompt, strength, colour, reference, actions);
  }
}
