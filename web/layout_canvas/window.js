// The canvas floating free of its node, over the whole window. It is the same canvas, moved there and back again.

import { element } from "./dom.js";
import { t } from "./languages.js";

const FOCUSABLE = "button, input, textarea, select, [tabindex]";

export class FullWindow {
  /**
   * @param holder the element of the node that holds the canvas
   * @param body the canvas
   * @param actions {focus(), changed()}: puts the focus on the drawing; is told after each change
   */
  constructor(holder, body, actions) {
    Object.assign(this, { holder, body, actions, overlay: null });
  }

  get isOpen() {
    return this.overlay !== null;
  }

  toggle() {
    if (this.isOpen) this.close();
    else this.open();
  }

  open() {
    if (this.isOpen || !this.body.isConnected) return;
    this.before = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.overlay = element("div", {
      class: "stage-window",
      role: "dialog",
      "aria-modal": "true",
      "aria-label": t("Layout canvas in the full window. Escape leaves."),
    });
    // ComfyUI's own dialogs, such as that for a workflow's name, come later and above; they take keys as always.
    this.covered = [...document.body.children].filter((each) => !each.inert && !/^(SCRIPT|STYLE)$/.test(each.tagName));
    this.overlay.addEventListener("keydown", (event) => event.key === "Tab" && this.keepFocus(event), true);
    this.overlay.append(this.body);
    document.body.append(this.overlay);
    for (const each of this.covered) each.inert = true;
    this.actions.focus();
    this.actions.changed();
  }

  close() {
    if (!this.isOpen) return;
    for (const each of this.covered) each.inert = false;
    this.holder.append(this.body);
    this.overlay.remove();
    this.overlay = null;
    this.actions.changed();
    if (this.before?.isConnected) this.before.focus({ preventScroll: true });
    else this.actions.focus();
  }

  /** Goes on at the other end, so that Tab never leaves what is seen. */
  keepFocus(event) {
    const all = [...this.overlay.querySelectorAll(FOCUSABLE)].filter(
      (each) => each.tabIndex >= 0 && !each.disabled && !each.closest("[inert]") && each.checkVisibility(),
    );
    const [first, last] = [all[0], all[all.length - 1]];
    const [from, to] = event.shiftKey ? [first, last] : [last, first];
    if (!to || document.activeElement !== from) return;
    event.preventDefault();
    event.stopPropagation();
    to.focus();
  }
}
