// Brings pasted, dropped and chosen texts into the drawing: by the reader here, or else by the server's.

import { element } from "./dom.js";
import { addLayout, importText } from "./import.js";
import { t } from "./languages.js";
import { LayoutTextError, layoutOf } from "./state.js";

export class Importer {
  constructor(editor) {
    this.editor = editor;
  }

  async import(text) {
    const { editor } = this;
    if (editor.problem !== null) return;
    try {
      this.take(importText(text, editor.layout));
    } catch (error) {
      const reason =
        error instanceof LayoutTextError
          ? error.message
          : t("This file has not the form of a layout, of COCO or of boxes: {error}", { error: error.message });
      await this.byServer(text, reason);
    }
  }

  /** Lets the reader of the node Layout try, which also knows lines, sentences and language models' answers. */
  async byServer(text, reason) {
    const { editor } = this;
    editor.say(t("Reading…"));
    try {
      const { width, height } = editor.layout;
      const { layout, whole, error } = await editor.host.read(text, width, height);
      // What was valid JSON is refused by what was found wrong with it here.
      if (error) return editor.say(isJson(text) ? reason : error);
      editor.whenFree(() => {
        const read = layoutOf(layout);
        this.take(whole ? read : addLayout(read, editor.layout));
      });
    } catch {
      editor.say(reason);
    }
  }

  take(layout) {
    const before = this.editor.layout.regions.length;
    this.editor.commit(layout, { select: null });
    this.editor.tell("view");
    this.editor.say(
      t("Imported: {now} regions now, {before} before. Undo brings them back.", {
        now: layout.regions.length,
        before,
      }),
    );
  }

  choose() {
    const input = element("input", { type: "file", accept: ".json,.txt,.md,application/json,text/plain" });
    input.addEventListener("change", async () => input.files[0] && this.import(await input.files[0].text()));
    input.click();
  }
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
