// Names with values, kept up to date in place: what has not changed is not touched, so that a text can be
// selected, or read aloud, while others change beside it.

import { fill, h } from './dom.js';

/** Names with values. */
export const factList = () => list('facts', 'fact', (value) => value);

/** Names with large numbers, and a note to each. */
export const figureList = () => list('figures', 'figure', figure);

function figure(value, note) {
  return [h('strong', {}, value), note && h('span', {}, note)];
}

function list(kind, each, look) {
  const element = h('dl', { class: kind });
  /** By name. */
  const rows = new Map();
  return {
    element,
    /** @param {any[][]} facts name, value, and for figures a note */
    show(facts) {
      for (const [name, row] of rows) {
        if (facts.some((fact) => fact[0] === name)) continue;
        row.remove();
        rows.delete(name);
      }
      facts.forEach(([name, value, note], place) => {
        const fresh = h('div', { class: each }, h('dt', {}, name), h('dd', {}, look(value, note)));
        const row = rows.get(name);
        if (!row) {
          element.insertBefore(fresh, element.children[place] ?? null);
          rows.set(name, fresh);
        } else if (row.textContent !== fresh.textContent) {
          fill(row, ...fresh.childNodes);
        }
      });
    },
  };
}
