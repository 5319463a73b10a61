// Batches as rows of a table.

import { timeAgo } from '../clock.js';
import { fill, h } from '../dom.js';
import { batchName, count, shortId } from '../format.js';
import { inState, percent, stateBar, stateTag } from '../states.js';

/**
 * Shows batches in an element. A link in it that had the focus has it again afterwards.
 *
 * @param {HTMLElement} element
 * @param {any[]} batches
 * @param {string} caption for screen readers: a heading says it to the others
 */
export function showBatchRows(element, batches, caption) {
  const focused = element.contains(document.activeElement)
    ? document.activeElement.getAttribute('href')
    : null;
  fill(element, batchTable(batches, caption));
  if (focused) element.querySelector(`a[href="${focused}"]`)?.focus();
}

function batchTable(batches, caption) {
  return h(
    'table',
    { class: 'batches' },
    h('caption', { class: 'hidden-text' }, caption),
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        ['Batch', 'State', 'Progress', 'Jobs', 'Dead', 'Submitted'].map((t) => h('th', { scope: 'col' }, t)),
      ),
    ),
    h('tbody', {}, batches.map(row)),
  );
}

function row(batch) {
  const dead = inState(batch, 'dead');
  return h(
    'tr',
    {},
    h(
      'th',
      { scope: 'row' },
      h('a', { href: `/batches/${batch.id}` }, batchName(batch)),
      batch.name && h('span', { class: 'id' }, shortId(batch.id)),
    ),
    h('td', { class: 'cell-state' }, stateTag(batch.state)),
    h(
      'td',
      { class: 'cell-progress' },
      h('div', { class: 'progress' }, stateBar(batch), h('span', { class: 'number' }, percent(batch))),
    ),
    h('td', { class: 'number', 'data-label': 'jobs' }, count(batch.jobs)),
    h(
      'td',
      { class: 'number', 'data-label': 'dead' },
      dead > 0 ? h('a', { href: `/dead?batch=${batch.id}` }, count(dead)) : '0',
    ),
    h('td', { class: 'cell-time' }, timeAgo(batch.created_at)),
  );
}
