// Says what is wrong with a text that is no layout, keeps it, and offers the ways out.

import { element, keepKeys } from "./dom.js";
import { t } from "./languages.js";

export class Trouble {
  /**
   * @param main what the trouble covers
   * @param begins called before it is shown
   */
  constructor(editor, main, begins) {
    Object.assign(this, { editor, main, begins, shown: null, element: null });
  }

  show() {
    const { problem, text: found } = this.editor;
    const trouble = problem === null ? null : `${problem}\n${found}`;
    if (trouble === this.shown) return;
    this.shown = trouble;
    this.element?.remove();
    // What lies below the text must not take keys that would draw over it.
    const covered = [this.main.parentElement?.firstElementChild, ...this.main.children];
    for (const part of covered) if (part && part !== this.main) part.inert = problem !== null;
    if (problem === null) return;
    this.begins();
    const text = element("textarea", { "aria-label": t("The text of the layout"), spellcheck: "false", value: found });
    const act = (label, onclick, kind = "") =>
      keepKeys(element("button", { type: "button", class: `stage-action ${kind}`, text: label, onclick }));
    const retry = () => {
      this.editor.read(text.value);
      this.editor.host.changed(false);
    };
    this.element = element(
      "div",
      { class: "stage-trouble", role: "alert" },
      element("h2", { text: t("This text cannot be shown as a layout") }),
      element("p", { text: problem }),
      element("p", {
        class: "stage-faint",
        text: t("It is kept as it is, and the node still receives it. Correct it here, or start anew."),
      }),
      text,
      element(
        "div",
        { class: "stage-actions" },
        act(t("Try again"), retry, "is-main"),
        act(t("Start anew"), () => this.editor.startAnew()),
      ),
    );
    this.main.append(this.element);
  }
}
