// Draws an attention map over a picture, as the node Attention Maps does: dark where a phrase does not look.

import { FULL } from "./pixels.js";

// The same numbers as in core/attention/heat_maps.py.
const DIMMED = 0.35; // of a picture's light, where a phrase does not look at all
const OPAQUE = 0.75; // of the colour, where it looks most
const RAMP = [
  [0.1, 0.07, 0.3],
  [0.5, 0.1, 0.55],
  [0.9, 0.3, 0.3],
  [1, 0.65, 0.15],
  [1, 1, 0.6],
];

const drawn = new WeakMap(); // pixels of a map -> its picture

/** The colour over each pixel and how much of it: what it takes of the picture's light and what it adds are one. */
function paint(context, { width, height, data }) {
  const image = context.createImageData(width, height);
  for (let at = 0; at < data.length; at++) {
    const heat = data[at] / FULL;
    const place = heat * (RAMP.length - 1);
    const below = Math.min(Math.floor(place), RAMP.length - 2);
    const opacity = OPAQUE * heat;
    const cover = 1 - (1 - opacity) * (DIMMED + (1 - DIMMED) * heat);
    for (let channel = 0; channel < 3; channel++) {
      const colour = RAMP[below][channel] + (place - below) * (RAMP[below + 1][channel] - RAMP[below][channel]);
      image.data[4 * at + channel] = cover ? (FULL * opacity * colour) / cover : 0;
    }
    image.data[4 * at + 3] = FULL * cover;
  }
  context.putImageData(image, 0, 0);
}

/** @param place left, top, width and height on the screen */
export function drawHeat(context, map, place, opacity) {
  if (!drawn.has(map)) {
    const canvas = document.createElement("canvas");
    canvas.width = map.width;
    canvas.height = map.height;
    paint(canvas.getContext("2d"), map);
    drawn.set(map, canvas);
  }
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingQuality = "high";
  context.drawImage(drawn.get(map), ...place);
  context.restore();
}
