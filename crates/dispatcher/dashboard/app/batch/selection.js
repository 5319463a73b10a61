// Which jobs of the gallery are selected.

/** Tells `change`. */
export class Selection extends EventTarget {
  #indices = new Set();
  /** Where a range begins. */
  #anchor = null;

  has(index) {
    return this.#indices.has(index);
  }

  get size() {
    return this.#indices.size;
  }

  /** In the order of the batch. */
  get indices() {
    return [...this.#indices].sort((a, b) => a - b);
  }

  toggle(index) {
    if (!this.#indices.delete(index)) this.#indices.add(index);
    this.#anchor = index;
    this.#changed();
  }

  /** Selects from where one selected last to a job, in the order shown. */
  extend(index, shown) {
    const from = shown.indexOf(this.#anchor ?? index);
    const to = shown.indexOf(index);
    const [low, high] = from <= to ? [from, to] : [to, from];
    for (const each of shown.slice(Math.max(low, 0), high + 1)) this.#indices.add(each);
    this.#anchor ??= index;
    this.#changed();
  }

  all(shown) {
    for (const index of shown) this.#indices.add(index);
    this.#changed();
  }

  clear() {
    this.#indices.clear();
    this.#anchor = null;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}
