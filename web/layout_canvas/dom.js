// Makes elements. Text only ever goes in as text, so a phrase with markup in it stays a phrase.

import { ICONS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element: properties that begin with "on" are listeners, the others attributes; false and null leave one out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (name === "value") made.value = value;
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function icon(name) {
  const drawn = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 20 20", width: 16, height: 16, "aria-hidden": "true" })) {
    drawn.setAttribute(key, value);
  }
  for (const data of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", data);
    drawn.append(path);
  }
  return drawn;
}

/** A button with an icon; `label` is its tooltip and what a screen reader says. */
export function button(name, label, onclick, properties = {}) {
  const made = element("button", {
    type: "button",
    class: "stage-button",
    title: label,
    "aria-label": label,
    onclick,
    ...properties,
  });
  made.append(icon(name));
  return keepKeys(made);
}

/** Changes the picture and the label of a button, only where they differ. */
export function relabel(made, name, label) {
  if (made.dataset.icon !== name) {
    made.dataset.icon = name;
    made.replaceChildren(icon(name));
  }
  if (made.title !== label) {
    made.title = label;
    made.setAttribute("aria-label", label);
  }
}

/** Whether an edit of a field is the browser's own undo, which also reaches fields that have lost the focus. */
export const isHistoryOfOthers = (event) =>
  Boolean(event.inputType?.startsWith("history")) && document.activeElement !== event.target;

/**
 * Keeps ComfyUI's undo of the whole graph away from keys that go to this element.
 *
 * ComfyUI listens on the window before anybody else and spares only what looks like a text field to it: older versions
 * ask for the type, newer ones whether the content is editable. The editor has an undo of its own.
 */
export function keepKeys(made) {
  Object.defineProperty(made, "type", { value: "textarea" });
  Object.defineProperty(made, "isContentEditable", { value: true });
  return made;
}
