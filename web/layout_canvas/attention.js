// What the phrases looked at in the last run: the maps of the node Attention Maps, and whether they are still those of
// what is drawn.

import { t } from "./languages.js";
import { loadSoftMask, readMask } from "./masks.js";
import { checksum } from "./zlib.js";

// What a run knows of a drawing; a colour of an outline or a lock makes no other picture.
const [OF_LAYOUT, OF_REGION] = [
  ["width", "height", "prompt", "background"],
  ["phrase", "prompt", "strength", "colour", "reference", "hidden", "box", "mask"],
];

/** Whether two values of JSON are equal; those that a step has left alone are the same object. */
function isEqual(one, other) {
  if (one === other || !one || !other || typeof one !== "object" || typeof other !== "object") return one === other;
  const keys = Object.keys(one);
  return keys.length === Object.keys(other).length && keys.every((key) => isEqual(one[key], other[key]));
}

function isSameDrawing(one, other) {
  const isSame = (a, b, names) => names.every((name) => isEqual(a[name], b[name]));
  const { regions } = other;
  return (
    one === other ||
    (isSame(one, other, OF_LAYOUT) &&
      one.regions.length === regions.length &&
      one.regions.every((region, i) => isSame(region, regions[i], OF_REGION)))
  );
}

export class Attention {
  /** @param pictures loads pictures from the server */
  constructor(editor, pictures) {
    Object.assign(this, { editor, pictures });
  }

  /** Hears that the node of this canvas has run, with which text, which layout that was, and in which run. */
  noteRun({ text, layout }, run) {
    const { editor } = this;
    // Somebody may have drawn on since the run was queued; then what it ran with is not known any more.
    const isSame = editor.problem === null && checksum(editor.text) === text;
    editor.ran = { layout, run, drawing: isSame ? editor.layout : null };
    editor.tell("view", "tool");
  }

  /** Takes the maps of a run: {layout, picture, maps: [{phrase, map}]}. */
  async take({ layout, picture, maps }, run) {
    const phrases = new Map();
    for (const { phrase, map } of maps) {
      await loadSoftMask(map);
      const pixels = readMask(map);
      if (pixels) phrases.set(plain(phrase), pixels);
    }
    this.editor.maps = { layout, run, phrases, picture: await this.pictures.load(picture) };
    this.editor.tell("view", "tool");
  }
}

const plain = (words) => words.trim().toLowerCase().replace(/\s+/g, " ");

/** Whether the maps are of what is drawn now. */
export function isFresh({ maps, ran, layout }) {
  const isOfRun = ran && maps.layout === ran.layout && maps.run === ran.run;
  return Boolean(isOfRun && ran.drawing && isSameDrawing(ran.drawing, layout));
}

/** Whether maps are shown where a region is selected. */
export const showsMaps = ({ maps, shows, tool }) => Boolean(maps) && shows.maps && (tool === "select" || tool === "box");

/** The pixels of the map to show, or null. */
export const shownMap = (editor) =>
  (showsMaps(editor) && editor.region && editor.maps.phrases.get(plain(editor.region.phrase))) || null;

/** What the canvas says of the map that it shows, "" where there is nothing to say. */
export function mapNote(editor) {
  if (!showsMaps(editor)) return "";
  const phrase = editor.region?.phrase.trim();
  if (!editor.region) return t("Select a region to see where its phrase looks");
  if (!shownMap(editor)) {
    return phrase
      ? t("The last run has no attention map of “{phrase}”", { phrase })
      : t("The last run has no attention map of this region");
  }
  if (isFresh(editor)) return t("Where “{phrase}” looks", { phrase });
  const { maps, ran } = editor;
  const isOfLast = !ran || maps.run === ran.run;
  if (!isOfLast) return t("Where “{phrase}” looked in an earlier run", { phrase });
  return maps.layout === ran?.layout
    ? t("Where “{phrase}” looked in the last run; the layout is another one now", { phrase })
    : t("Where “{phrase}” looked in the last run", { phrase });
}
