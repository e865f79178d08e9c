// Every key of the editor, in one table: the keyboard handler, the help and the tooltips read it.

// [what it does, the keys as they are shown, the name of the command, the keys as events name them]
export const SHORTCUTS = [
  [
    "Tools",
    [
      ["Select, move and resize", "V", "select", ["v"]],
      ["Draw a box", "B", "box", ["b"]],
      ["Brush: paint the region's mask", "P", "brush", ["p"]],
      ["Eraser: take away from the region", "E", "eraser", ["e"]],
      ["Brush smaller or larger", "[  ]", null, []],
      ["Brush harder or softer", "Shift + [  ]", null, []],
    ],
  ],
  [
    "Selected region",
    [
      ["Move by one latent cell", "Arrow keys", null, []],
      ["Resize by one latent cell", "Shift + arrow keys", null, []],
      ["Move or resize by one pixel", "Alt + arrow keys", null, []],
      ["Nearer or farther", "Page Up  Page Down", null, []],
      ["Name it", "Enter", "name", ["enter"]],
      ["Duplicate", "Ctrl + D", "duplicate", ["ctrl+d"]],
      ["Delete", "Delete", "delete", ["delete", "backspace"]],
      ["Hide or show", "H", "hide", ["h"]],
      ["Lock or unlock", "L", "lock", ["l"]],
      ["Next or previous region", "N  Shift + N", null, []],
      ["Give it a reference picture", "Ctrl + V", null, []],
      ["Select what lies behind", "Ctrl + click", null, []],
      ["Let go; then leave the full window", "Esc", "escape", ["escape"]],
    ],
  ],
  [
    "Canvas",
    [
      ["Add a box in the middle", "A", "add", ["a"]],
      ["Undo", "Ctrl + Z", "undo", ["ctrl+z"]],
      ["Redo", "Ctrl + Shift + Z", "redo", ["ctrl+shift+z", "ctrl+y"]],
      ["Snap to the latent grid and to other regions", "G", "snap", ["g"]],
      ["Draw or move without snapping", "hold Alt", null, []],
      ["Show the last result below the boxes", "R", "result", ["r"]],
      ["Show what the selected phrase looked at", "M", "maps", ["m"]],
      ["Full window, and back", "W", "window", ["w"]],
      ["Zoom", "Ctrl + wheel,  +  −", null, []],
      ["Zoom to fit", "F", "fit", ["f"]],
      ["Move the view", "Space + drag, middle button, two fingers", null, []],
      ["This help", "?", "help", ["?"]],
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
