// The bar above the canvas, its menu, and the help.

import { showsMaps } from "./attention.js";
import { button, element, keepKeys, relabel } from "./dom.js";
import { run } from "./keyboard.js";
import { mark, t } from "./languages.js";
import { keysOf, SHORTCUTS } from "./shortcuts.js";

const TOOLS = [
  ["select", mark("Select, move and resize")],
  ["box", mark("Draw a box")],
  ["brush", mark("Brush: paint the region's mask")],
  ["eraser", mark("Eraser")],
];

function slider(label, keys, [min, max, step], set) {
  const title = keys ? `${label} (${keys})` : label;
  const made = element("input", { type: "range", min, max, step, "aria-label": label, title, class: "stage-slider" });
  made.addEventListener("input", () => set(Number(made.value)));
  return made;
}

export class Toolbar {
  /** @param entries the menu's: [{text, hint, isShown(), act()}] */
  constructor(editor, surface, entries) {
    Object.assign(this, { editor, surface, entries });
    const command = (name, icon, label) =>
      button(icon, `${label} (${keysOf(name)})`, () => run(name, surface), { "data-command": name });
    this.tools = TOOLS.map(([name, label]) => command(name, name, t(label)));
    this.undo = command("undo", "undo", t("Undo"));
    this.redo = command("redo", "redo", t("Redo"));
    this.snap = command("snap", "snap", t("Snap to the latent grid and to other regions"));
    this.fit = command("fit", "fit", t("Zoom to fit"));
    this.result = command("result", "result", t("Show the last result below the boxes"));
    this.maps = command("maps", "maps", t("Show what the selected region's phrase looked at in the last run"));
    this.window = command("window", "window", t("Full window"));
    this.size = slider(t("Size of the brush"), "[ and ]", [2, 120, 1], (value) => editor.setBrush(value));
    this.softness = slider(t("Softness of the brush"), "Shift + [ and ]", [0, 1, 0.1], (value) =>
      editor.setSoftness(value),
    );
    const show = (name) => (value) => {
      editor.shows[name] = value;
      editor.tell("view");
    };
    this.opacity = slider(t("Opacity of the picture"), "", [0.1, 1, 0.05], show("opacity"));
    this.mapOpacity = slider(t("Opacity of the attention map"), "", [0.1, 1, 0.05], show("mapOpacity"));
    this.menuButton = button("menu", t("Import, export and more"), () => this.toggleMenu());
    this.menuButton.setAttribute("aria-haspopup", "menu");
    this.help = command("help", "help", t("Help: the keys"));
    const group = (label, ...made) =>
      element("div", { class: "stage-group", role: "group", "aria-label": label }, ...made);
    this.element = element(
      "div",
      { class: "stage-toolbar", role: "toolbar", "aria-label": t("Layout tools") },
      group(t("Tools"), ...this.tools),
      this.size,
      this.softness,
      group(t("Steps"), this.undo, this.redo),
      group(t("View"), this.snap, this.fit, this.result),
      this.opacity,
      group(t("Attention"), this.maps),
      this.mapOpacity,
      element("span", { class: "stage-space" }),
      group(t("More"), this.window, this.menuButton, this.help),
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
    press(this.maps, showsMaps(editor));
    this.maps.disabled = !editor.maps;
    this.size.hidden = this.softness.hidden = editor.tool !== "brush" && editor.tool !== "eraser";
    this.opacity.hidden = !editor.result && !editor.picture;
    this.mapOpacity.hidden = !showsMaps(editor);
    this.size.value = editor.brush;
    this.softness.value = editor.softness;
    this.opacity.value = editor.shows.opacity;
    this.mapOpacity.value = editor.shows.mapOpacity;
    const isInWindow = this.surface.actions.isInWindow();
    const label = isInWindow ? t("Back into the node (W or Esc)") : t("Full window (W)");
    relabel(this.window, isInWindow ? "node" : "window", label);
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
    this.menu = element("div", { class: "stage-menu", role: "menu", "aria-label": t("Layout") }, ...items);
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
      element("h3", { text: t(title) }),
      element(
        "dl",
        {},
        ...rows.flatMap(([what, keys]) => [element("dt", { text: t(what) }), element("dd", { text: t(keys) })]),
      ),
    ),
  );
  const closing = button("close", t("Close (Esc)"), close);
  const help = element(
    "div",
    { class: "stage-help", role: "dialog", "aria-label": t("Keys of the layout canvas") },
    element(
      "header",
      {},
      element("h2", { text: t("Keys") }),
      element("p", { class: "stage-faint", text: t("Click the canvas first; on a Mac, Command does what Ctrl does.") }),
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
