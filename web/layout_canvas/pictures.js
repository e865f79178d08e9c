// Pictures from the server: what the last run made, what is connected, and the regions' references.

import { element } from "./dom.js";
import { t } from "./languages.js";
import { findRegion } from "./state.js";

const SAME_ASPECT = 0.02; // how far a result's aspect may be from the canvas' to count as a picture of this layout

export class Pictures {
  /** @param server {upload(file) -> name in the input folder, urlOf({filename, subfolder, type}) -> address} */
  constructor(editor, server) {
    Object.assign(this, { editor, server });
  }

  /**
   * Shows a picture of the last run below the regions, if it can be one of this layout.
   *
   * @param run the run's name; a picture that it saves goes before one that it only previews
   */
  async showResult(images, run) {
    const isSaved = images.some(({ type }) => type === "output");
    if (!isSaved && this.savedBy === run) return;
    if (isSaved) this.savedBy = run;
    for (const image of [...images].reverse()) {
      const picture = await this.load(image);
      const { width, height } = this.editor.layout;
      if (!picture || Math.abs((picture.naturalWidth * height) / (picture.naturalHeight * width) - 1) > SAME_ASPECT)
        continue;
      this.editor.result = picture;
      this.editor.tell("view", "tool");
      return;
    }
  }

  async showConnected(image) {
    this.editor.picture = await this.load(image);
    this.editor.tell("view", "tool");
  }

  async load(image) {
    const picture = new Image();
    picture.src = this.server.urlOf(image);
    try {
      await picture.decode();
      return picture;
    } catch {
      return null; // it is gone from the server's folder, and there is nothing to show
    }
  }

  /** Fills the button of a region's reference with the picture, or with what to do. */
  showReference(made, name) {
    if (made.dataset.name === name) return;
    made.dataset.name = name;
    made.title = name || t("Choose a picture, or copy one and press Ctrl + V on the canvas");
    if (!name) return made.replaceChildren(element("span", { text: t("Paste or choose") }));
    const at = name.lastIndexOf("/");
    const image = { filename: name.slice(at + 1), subfolder: name.slice(0, Math.max(at, 0)), type: "input" };
    const shown = element("img", { src: this.server.urlOf(image), alt: "" });
    made.replaceChildren(shown, element("span", { text: image.filename }));
  }

  chooseReference(key) {
    const input = element("input", { type: "file", accept: "image/*" });
    input.addEventListener("change", () => input.files[0] && this.useReference(key, input.files[0]));
    input.click();
  }

  /** Uploads a picture and makes it a region's reference. */
  async useReference(key, file) {
    this.editor.say(t("Uploading the reference picture…"));
    try {
      const reference = await this.server.upload(file);
      this.editor.whenFree(() => this.setReference(key, reference));
    } catch (error) {
      this.editor.say(t("The reference picture could not be uploaded: {error}", { error: error.message }));
    }
  }

  setReference(key, reference) {
    if (!findRegion(this.editor.layout, key)) {
      return this.editor.say(t("The region of the reference picture is gone. Select another one and choose it again."));
    }
    this.editor.change(key, { reference });
    this.editor.say(t("The reference picture is set."));
  }
}
