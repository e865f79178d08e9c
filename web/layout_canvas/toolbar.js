// The bar above the canvas, its menu, and the help.

import { button, element, keepKeys } from "./dom.js";
import { run } from "./keyboard.js";
import { keysOf, SHORTCUTS } from "./shortcuts.js";

const TOOLS = [
  ["select", "Select, move and resize"],
  ["box", "Draw a box"],
  ["brush", "Brush: paint the region's mask"],
  ["eraser", "Eraser"],
];

export class Toolbar {
  /** @param entries the menu's: [{text, hint, isShown(), act()}] */
  constructor(editor, surface, entries) {
    Object.assign(this, { editor, surface, entries });
    const command = (name, icon, label) =>
      button(icon, `${label} (${keysOf(name)})`, () => run(name, surface), { "data-command": name });
    this.tools = TOOLS.map(([name, label]) => command(name, name, label));
    this.undo = command("undo", "undo", "Undo");
    this.redo = command("redo", "redo", "Redo");
    this.snap = command("snap", "snap", "Snap to the latent grid and to other regions");
    this.fit = command("fit", "fit", "Zoom to fit");
    this.result = command("result", "result", "Show the last result below the boxes");
    this.size = element("input", {
      type: "range",
      min: 2,
      max: 120,
      "aria-label": "Size of the brush",
      title: "Size of the brush ([ and ])",
      class: "stage-slider",
    });
    this.size.addEventListener("input", () => editor.setBrush(Number(this.size.value)));
    this.opacity = element("input", {
      type: "range",
      min: 0.1,
      max: 1,
      step: 0.05,
      "aria-label": "Opacity of the picture",
      title: "Opacity of the picture",
      class: "stage-slider",
    });
    this.opacity.addEventListener("input", () => {
      editor.shows.opacity = Number(this.opacity.value);
      editor.tell("view");
    });
    this.menuButton = button("menu", "Import, export and more", () => this.toggleMenu());
    this.menuButton.setAttribute("aria-haspopup", "menu");
    this.help = command("help", "help", "Help: the keys");
    const group = (label, ...made) =>
      element("div", { class: "stage-group", role: "group", "aria-label": label }, ...made);
    this.element = element(
      "div",
      { class: "stage-toolbar", role: "toolbar", "aria-label": "Layout tools" },
      group("Tools", ...this.tools),
      this.size,
      group("Steps", this.undo, this.redo),
      group("View", this.snap, this.fit, this.result),
      this.opacity,
      element("span", { class: "stage-space" }),
      group("More", this.menuButton, this.help),
    );
    editor.listen(() => this.update());
    this.update();
  }

  update() {
    const { editor } = this;
    const press = (made, isOn) => {
      if (made.getAttribute("aria-pressed") !== String(isOn)) made.setAttribute("aria-pressed", isOn);
    };
    this.tools.forEach((made) => press(made, made.dataset.command === editor.tool));
    press(this.snap, editor.snap);
    press(this.result, editor.shows.result && Boolean(editor.result));
    this.undo.disabled = !editor.history.canUndo;
    this.redo.disabled = !editor.history.canRedo;
    this.result.disabled = !editor.result;
    this.size.hidden = editor.tool !== "brush" && editor.tool !== "eraser";
    this.opacity.hidden = !editor.result && !editor.picture;
    this.size.value = editor.brush;
    this.opacity.value = editor.shows.opacity;
  }

  toggleMenu() {
    if (this.menu) return this.closeMenu();
    const shown = this.entries.filter((entry) => entry.isShown());
    const items = shown.map(({ text, hint, act }) =>
      keepKeys(
        element("button", {
          type: "button",
          role: "menuitem",
          text,
          title: hint,
          onclick: () => {
            this.closeMenu();
            act();
          },
        }),
      ),
    );
    this.menu = element("div", { class: "stage-menu", role: "menu", "aria-label": "Layout" }, ...items);
    this.menu.addEventListener("keydown", (event) => this.keyInMenu(event, items));
    this.menu.addEventListener("focusout", (event) => {
      if (!this.menu?.contains(event.relatedTarget) && event.relatedTarget !== this.menuButton) this.closeMenu();
    });
    this.element.append(this.menu);
    this.menuButton.setAttribute("aria-expanded", "true");
    items[0].focus();
  }

  keyInMenu(event, items) {
    const at = items.indexOf(document.activeElement);
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) items[(at + steps[event.key] + items.length) % items.length].focus();
    else if (event.key === "Escape") this.closeMenu(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  closeMenu(returnsFocus = false) {
    const menu = this.menu;
    this.menu = null; // first, because taking it away moves the focus and calls this again
    menu?.remove();
    this.menuButton.setAttribute("aria-expanded", "false");
    if (returnsFocus) this.menuButton.focus();
  }
}

/** The table of keys, over the canvas until it is closed. */
export function openHelp(root, returnFocus) {
  const open = root.querySelector(".stage-help");
  const close = () => {
    root.querySelector(".stage-help")?.remove();
    returnFocus();
  };
  if (open) return close();
  const sections = SHORTCUTS.map(([title, rows]) =>
    element(
      "section",
      {},
      element("h3", { text: title }),
      element(
        "dl",
        {},
        ...rows.flatMap(([what, keys]) => [element("dt", { text: what }), element("dd", { text: keys })]),
      ),
    ),
  );
  const closing = button("close", "Close (Esc)", close);
  const help = element(
    "div",
    { class: "stage-help", role: "dialog", "aria-label": "Keys of the layout canvas" },
    element(
      "header",
      {},
      element("h2", { text: "Keys" }),
      element("p", { class: "stage-faint", text: "Click the canvas first; on a Mac, Command does what Ctrl does." }),
      closing,
    ),
    element("div", { class: "stage-help-sections", tabindex: -1 }, ...sections),
  );
  help.addEventListener("keydown", (event) => {
    if (event.key === "Escape" || event.key === "?") {
      close();
      event.preventDefault();
    }
    event.stopPropagation();
  });
  root.append(help);
  closing.focus();
}
