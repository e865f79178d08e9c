// COCO's run-length code: hard masks as a short text. Nothing here needs a page.

import { emptyPixels, FULL } from "./pixels.js";

/** Lengths of alternating runs, outside first, column by column from the left. */
export function runsOf({ width, height, data }) {
  const runs = [];
  let inside = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (data[at] !== inside) {
        runs.push(length);
        length = 0;
        inside = FULL - inside;
      }
      length++;
    }
  }
  runs.push(length);
  return runs;
}

export function pixelsOfRuns(runs, width, height) {
  const pixels = emptyPixels(width, height);
  let at = 0;
  runs.forEach((length, index) => {
    if (!Number.isInteger(length) || length < 0 || at + length > width * height) {
      throw new Error("the runs of a mask do not fit its size");
    }
    if (index % 2) {
      for (let end = at + length, i = at; i < end; i++) pixels.data[(i % height) * width + Math.floor(i / height)] = FULL;
    }
    at += length;
  });
  if (at !== width * height) throw new Error("the runs of a mask do not fill its size");
  return pixels;
}

/** COCO's text for runs: differences to the run before the last, five bits to a character. */
export function encodeRuns(runs) {
  let text = "";
  runs.forEach((run, index) => {
    let value = index > 2 ? run - runs[index - 2] : run;
    let more = true;
    while (more) {
      let bits = value & 31;
      value >>= 5;
      more = bits & 16 ? value !== -1 : value !== 0;
      if (more) bits |= 32;
      text += String.fromCharCode(bits + 48);
    }
  });
  return text;
}

export function decodeRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    let bits = 32;
    while (bits & 32) {
      bits = text.charCodeAt(at++) - 48;
      if (!(bits >= 0 && bits < 64) || shift > 30) throw new Error("the text of a mask is damaged");
      value |= (bits & 31) << shift;
      shift += 5;
    }
    if (bits & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}
