// Charts for those who do not see them: in a sentence, and as a table.

import { h } from './dom.js';

/** Rows of the table: more would say no more. */
const ROWS_MAX = 60;

/** The last value that there is. */
export function lastKnown(values) {
  return values.findLast((value) => value !== null && value !== undefined) ?? null;
}

/** What the chart shows, in a sentence for each series. */
export function summary(options, data) {
  const said = options.series.map((series, n) => {
    const known = data[n + 1].filter((y) => y !== null && y !== undefined);
    if (!known.length) return `${series.label}: no data.`;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return `${series.label}: last ${series.format(known.at(-1))}, from ${series.format(low)} to ${series.format(high)}.`;
  });
  const marks = options.marks?.list ?? [];
  if (marks.length)
    said.push(`Marks: ${marks.map((m) => `${m.meaning} at ${options.x.format(m.x)}`).join(', ')}.`);
  return `${options.title}. ${said.join(' ')}`;
}

/** The data as a table. */
export function dataTable(options, data) {
  const every = Math.max(1, Math.ceil(data[0].length / ROWS_MAX));
  const marks = options.marks?.list ?? [];
  const markAt = (n) => marks.find((mark) => mark.x === data[0][n]);
  const rows = data[0].map((_, n) => n).filter((n) => n % every === 0 || markAt(n));
  return h(
    'div',
    { class: 'scroll short', tabindex: '0', role: 'group', 'aria-label': `Table: ${options.title}` },
    h(
      'table',
      {},
      h('caption', {}, options.title, every > 1 && `, every ${every}th point`),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          [options.x, ...options.series].map((s) => h('th', { scope: 'col' }, s.label)),
          options.marks && h('th', { scope: 'col' }, options.marks.name),
        ),
      ),
      h(
        'tbody',
        {},
        rows.map((n) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, options.x.format(data[0][n])),
            options.series.map((s, k) => h('td', { class: 'number' }, s.format(data[k + 1][n] ?? null))),
            options.marks && h('td', { class: 'number' }, markAt(n)?.text),
          ),
        ),
      ),
    ),
  );
}
