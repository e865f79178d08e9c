// Undo and redo over states that never change themselves.

const MOST_STEPS = 200;

export class History {
  constructor(state) {
    this.reset(state);
  }

  reset(state) {
    this.states = [state];
    this.at = 0;
    this.tag = null;
  }

  get state() {
    return this.states[this.at];
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.states.length - 1;
  }

  /** Adds a step. Steps in a row with the same tag are one, so that a typed word is undone as a whole. */
  push(state, tag = null) {
    this.states.length = this.at + 1;
    if (tag !== null && tag === this.tag && this.canUndo) {
      this.states[this.at] = state;
    } else {
      this.states.push(state);
      if (this.states.length > MOST_STEPS) this.states.shift();
      this.at = this.states.length - 1;
    }
    this.tag = tag;
  }

  /** Ends a run of steps with the same tag. */
  seal() {
    this.tag = null;
  }

  undo() {
    this.tag = null;
    if (this.canUndo) this.at--;
    return this.state;
  }

  redo() {
    this.tag = null;
    if (this.canRedo) this.at++;
    return this.state;
  }
}
