// What is connected to the node and came in with the last run: shown where it lies, and taken over to be edited.

import { button, element, keepKeys } from "./dom.js";
import { t } from "./languages.js";
import { limitMasks, loadSoftMask } from "./masks.js";
import { LayoutTextError, parseLayout } from "./state.js";

const NAMES = 3; // of things that the line names

const hasNoPlace = ({ box, mask }) => !box && !mask;

/** The regions that came in, where the run used them because nothing is drawn in their place; farthest first. */
export function offered({ offer, layout }) {
  if (!offer || offer.isDismissed) return [];
  const shown = layout.regions.filter(({ hidden }) => !hidden);
  return shown.every(hasNoPlace) ? offer.layout.regions : [];
}

/** The prompt that the server makes of a layout without one. */
function joined({ regions, background = "" }) {
  const phrases = regions.map(({ phrase }) => phrase);
  const last = phrases.pop();
  return `${phrases.length ? `${phrases.join(", ")} and ` : ""}${last} ${background}`.trim();
}

/** Reads what came in; null where nothing did. */
export async function readOffer(text, loaded) {
  if (text === null) return null;
  try {
    const layout = parseLayout(text);
    const masks = layout.regions.map(({ mask }) => mask);
    limitMasks(masks);
    Promise.all(masks.map(loadSoftMask)).then(loaded);
    // A prompt that only joins the names would go on saying the old ones.
    const prompt = layout.prompt === joined(JSON.parse(text)) ? "" : layout.prompt;
    return { text, layout: { ...layout, prompt }, isDismissed: false };
  } catch (error) {
    if (error instanceof LayoutTextError) return null;
    throw error;
  }
}

/** The drawing with what came in: in the place of what waits for a place, or as a whole but for what is written. */
export function taken(offer, layout) {
  const { regions, prompt, background } = offer.layout;
  const isWaiting = layout.regions.length > 0 && layout.regions.every(hasNoPlace);
  if (!isWaiting || layout.regions.length !== regions.length)
    return {
      ...offer.layout,
      prompt: layout.prompt.trim() ? layout.prompt : prompt,
      background: layout.background.trim() ? layout.background : background,
      editor: layout.editor,
    };
  const filled = layout.regions.map((region, i) => ({ ...region, box: regions[i].box, mask: regions[i].mask }));
  return { ...layout, regions: filled };
}

/** The line above the drawing that says what came in, and what can be done with it. */
export class OfferLine {
  /** @param take called to take it over */
  constructor(editor, take) {
    this.editor = editor;
    this.words = element("span");
    this.element = element(
      "div",
      { class: "stage-offer", role: "group", "aria-label": t("Connected things") },
      this.words,
      keepKeys(element("button", { type: "button", class: "stage-action is-main", text: t("Edit them"), onclick: take })),
      button("close", t("Leave them connected, and show them no more"), () => {
        editor.offer.isDismissed = true;
        editor.tell("view");
      }),
    );
    // What is pressed here is no drawing.
    this.element.addEventListener("pointerdown", (event) => event.stopPropagation());
    editor.listen(() => this.update());
    this.update();
  }

  update() {
    const regions = offered(this.editor);
    this.element.hidden = !regions.length || this.editor.isHeld;
    if (!regions.length) return;
    const names = regions.slice(0, NAMES).map(({ phrase }) => phrase);
    const more = regions.length > NAMES ? ", …" : "";
    const values = { count: regions.length, names: `${names.join(", ")}${more}` };
    this.words.textContent =
      regions.length === 1 ? t("1 thing came in: {names}", values) : t("{count} things came in: {names}", values);
  }
}
