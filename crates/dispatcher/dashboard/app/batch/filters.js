// Which jobs the gallery shows, and in which order. The address keeps it, so it can be sent to others.

import { button, field, h, select } from '../dom.js';
import { JOB_STATES } from '../states.js';

const FIELDS = ['state', 'label', 'min_score', 'max_score', 'custom_id', 'sort'];

const ORDERS = [
  ['', 'as they end'],
  ['-at', 'newest first'],
  ['index', 'as submitted'],
  ['score', 'weakest subject first'],
  ['-score', 'strongest first'],
];

/** The filters of an address, as a query for jobs. */
export function filtersOf(query) {
  return Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? '']));
}

/**
 * @param {Record<string, string>} chosen
 * @param {(filters: Record<string, string>) => void} change
 */
export function filterForm(chosen, change) {
  const states = [['', 'any'], ...JOB_STATES.map((state) => [state, state])];
  const range = { type: 'number', min: '0', max: '1', step: '0.01', inputmode: 'decimal' };
  const form = h(
    'form',
    { class: 'filters', role: 'search', 'aria-label': 'Jobs' },
    field('State', select({ name: 'state' }, states, chosen.state)),
    field('Order', select({ name: 'sort' }, ORDERS, chosen.sort)),
    field('Score from', h('input', { name: 'min_score', ...range, value: chosen.min_score })),
    field('to', h('input', { name: 'max_score', ...range, value: chosen.max_score })),
    field(
      'Label',
      h('input', { name: 'label', placeholder: 'key:value', pattern: '[^:]+:.*', value: chosen.label }),
    ),
    field('Custom id', h('input', { name: 'custom_id', value: chosen.custom_id })),
    button('Clear', () => change(Object.fromEntries(FIELDS.map((name) => [name, '']))), { kind: 'quiet' }),
  );
  const box = h('details', { class: 'filter-box' }, h('summary', {}, 'Filter and order'), form);
  // Folded where there is little room, unless something is chosen.
  box.open = matchMedia('(min-width: 44rem)').matches || Object.values(chosen).some(Boolean);
  const apply = () => {
    if (!form.reportValidity()) return;
    change(Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value.trim()])));
  };
  form.addEventListener('change', apply);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    apply();
  });
  return box;
}
