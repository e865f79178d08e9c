// What a person should know before the run. The server has the last word; these appear while one draws.

import { CELL } from "./geometry.js";
import { t } from "./languages.js";
import { boxOf, LARGEST_SIDE, MOST_REGIONS, SMALLEST_SIDE } from "./state.js";

const plain = (words) => words.trim().toLowerCase().replace(/\s+/g, " ");

/** Sentences about a layout, most urgent first: [{key, urgent, text}]; `key` names the region, null the whole. */
export function checkLayout(layout) {
  const found = [];
  const say = (key, urgent, text) => found.push({ key, urgent, text });
  const { width, height, prompt } = layout;
  if (Math.min(width, height) < SMALLEST_SIDE || Math.max(width, height) > LARGEST_SIDE) {
    say(
      null,
      true,
      t("The canvas is {width} × {height}; both sides must be {least} to {most} pixels.", {
        width,
        height,
        least: SMALLEST_SIDE,
        most: LARGEST_SIDE,
      }),
    );
  }
  const regions = layout.regions.filter((region) => !region.hidden);
  if (!regions.length)
    say(
      null,
      true,
      layout.regions.length ? t("All regions are hidden.") : t("Drag on the canvas to draw the first region."),
    );
  if (regions.length > MOST_REGIONS) {
    say(
      null,
      true,
      t("{count} regions take part; at most {most} are possible. Hide or delete some.", {
        count: regions.length,
        most: MOST_REGIONS,
      }),
    );
  }
  const names = new Map();
  regions.forEach((region, index) => {
    const name = plain(region.phrase);
    const box = boxOf(region, layout);
    if (!name) say(region.key, true, t("This region has no phrase yet. Say what it is, such as “a dog”."));
    if (!box && !region.mask)
      say(region.key, true, t("“{phrase}” has no place yet. Draw its box, or connect boxes.", region));
    if (name && names.has(name))
      say(
        region.key,
        false,
        t(
          "Two regions are called “{phrase}”; nodes that find a region by its phrase cannot tell them apart.",
          region,
        ),
      );
    names.set(name, region.key);
    if (name && prompt.trim() && !plain(prompt).includes(name)) {
      say(region.key, false, t("“{phrase}” is not in the prompt. Methods that guide attention need it there.", region));
    }
    if (!box) return;
    const [wide, tall] = [(box[2] - box[0]) * width, (box[3] - box[1]) * height];
    if (Math.min(wide, tall) < Math.min(CELL, width, height) - 1e-6) {
      say(
        region.key,
        false,
        t("“{phrase}” is thinner than one latent cell ({cell} pixels), so little of it can appear.", {
          phrase: region.phrase,
          cell: CELL,
        }),
      );
    }
    const covers = (other) =>
      other.box &&
      !other.mask &&
      other.box[0] <= box[0] &&
      other.box[1] <= box[1] &&
      other.box[2] >= box[2] &&
      other.box[3] >= box[3];
    const cover = regions.slice(index + 1).find(covers);
    if (cover)
      say(
        region.key,
        false,
        t("“{phrase}” lies behind “{cover}” as a whole, so nothing of it is seen.", {
          phrase: region.phrase,
          cover: cover.phrase,
        }),
      );
  });
  return found.sort((a, b) => b.urgent - a.urgent);
}
