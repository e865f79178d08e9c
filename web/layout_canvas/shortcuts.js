// Every key of the editor, in one table: the keyboard handler, the help and the tooltips read it.

import { mark } from "./languages.js";

// [what it does, the keys as they are shown, the name of the command, the keys as events name them]
export const SHORTCUTS = [
  [
    mark("Tools"),
    [
      [mark("Select, move and resize"), "V", "select", ["v"]],
      [mark("Draw a box"), "B", "box", ["b"]],
      [mark("Brush: paint the region's mask"), "P", "brush", ["p"]],
      [mark("Eraser: take away from the region"), "E", "eraser", ["e"]],
      [mark("Brush smaller or larger"), "[  ]", null, []],
      [mark("Brush harder or softer"), "Shift + [  ]", null, []],
    ],
  ],
  [
    mark("Selected region"),
    [
      [mark("Move by one latent cell"), mark("Arrow keys"), null, []],
      [mark("Resize by one latent cell"), mark("Shift + arrow keys"), null, []],
      [mark("Move or resize by one pixel"), mark("Alt + arrow keys"), null, []],
      [mark("Nearer or farther"), "Page Up  Page Down", null, []],
      [mark("Name it"), "Enter", "name", ["enter"]],
      [mark("Duplicate"), "Ctrl + D", "duplicate", ["ctrl+d"]],
      [mark("Delete"), "Del", "delete", ["delete", "backspace"]],
      [mark("Hide or show"), "H", "hide", ["h"]],
      [mark("Lock or unlock"), "L", "lock", ["l"]],
      [mark("Next or previous region"), "N  Shift + N", null, []],
      [mark("Give it a reference picture"), "Ctrl + V", null, []],
      [mark("Select what lies behind"), mark("Ctrl + click"), null, []],
      [mark("Let go; then leave the full window"), "Esc", "escape", ["escape"]],
    ],
  ],
  [
    mark("Canvas"),
    [
      [mark("Add a box in the middle"), "A", "add", ["a"]],
      [mark("Undo"), "Ctrl + Z", "undo", ["ctrl+z"]],
      [mark("Redo"), "Ctrl + Shift + Z", "redo", ["ctrl+shift+z", "ctrl+y"]],
      [mark("Snap to the latent grid and to other regions"), "G", "snap", ["g"]],
      [mark("Draw or move without snapping"), mark("hold Alt"), null, []],
      [mark("Show the last result below the boxes"), "R", "result", ["r"]],
      [mark("Show what the selected phrase looked at"), "M", "maps", ["m"]],
      [mark("Full window, and back"), "W", "window", ["w"]],
      [mark("Zoom"), mark("Ctrl + wheel,  +  −"), null, []],
      [mark("Zoom to fit"), "F", "fit", ["f"]],
      [mark("Move the view"), mark("Space + drag, middle button, two fingers"), null, []],
      [mark("This help"), "?", "help", ["?"]],
    ],
  ],
];

/** The shortcut of a command, for its tooltip. */
export function keysOf(command) {
  for (const [, rows] of SHORTCUTS) {
    for (const [, keys, name] of rows) if (name === command) return keys;
  }
  return "";
}

const COMMANDS = new Map(
  SHORTCUTS.flatMap(([, rows]) => rows.flatMap(([, , name, keys]) => keys.map((key) => [key, name]))),
);

/** The command that a key event asks for, or null. */
export function commandOf(event) {
  const modified = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  const shift = event.shiftKey && (modified || key.length > 1);
  return event.altKey ? null : (COMMANDS.get((modified ? "ctrl+" : "") + (shift ? "shift+" : "") + key) ?? null);
}
