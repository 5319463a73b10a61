// How problems are shown: what happened, what helps, and when the same is tried again.

import { button, h, prose } from './dom.js';
import { count, duration } from './format.js';

/** Lines of a refused batch that are listed. */
const LINES_SHOWN = 20;

/**
 * A problem in a box.
 *
 * @param {any} problem
 * @param {{again?: () => void, signal?: AbortSignal}} [options] `again` is called when the server said
 *   after how long, or by the button
 */
export function problemBox(problem, { again, signal } = {}) {
  const box = h(
    'div',
    { class: 'problem', role: 'alert' },
    h('p', { class: 'problem-title' }, problem.title ?? 'Something is wrong in this page'),
    h('p', {}, prose(problem.message)),
    problem.remedy && h('p', { class: 'remedy' }, prose(problem.remedy)),
    problem.errors?.length > 0 && refusedLines(problem),
  );
  if (again) {
    const note = h('span', { class: 'quiet' });
    box.append(h('div', { class: 'row' }, button('Try again', again, { icon: 'again' }), note));
    if (problem.retryAfter) countDown(problem.retryAfter, note, again, signal);
  } else if (problem.retryAfter) {
    box.append(h('p', {}, `Try again in ${duration(problem.retryAfter)}.`));
  }
  return box;
}

function refusedLines(problem) {
  const shown = problem.errors.slice(0, LINES_SHOWN);
  const left = problem.refused - shown.length;
  return h(
    'div',
    { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Refused lines' },
    h(
      'table',
      {},
      h('caption', {}, 'Refused lines'),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          ['Line', 'Field', 'What is wrong', 'Remedy'].map((t) => h('th', { scope: 'col' }, t)),
        ),
      ),
      h(
        'tbody',
        {},
        shown.map((e) =>
          h(
            'tr',
            {},
            h('th', { scope: 'row', class: 'number' }, count(e.line)),
            h('td', {}, h('code', {}, e.field)),
            h('td', {}, prose(e.message)),
            h('td', {}, prose(e.remedy)),
          ),
        ),
      ),
    ),
    left > 0 && h('p', { class: 'quiet' }, `and ${count(left)} more`),
  );
}

function countDown(seconds, note, again, signal) {
  let left = Math.ceil(seconds);
  const tell = () => {
    note.textContent = `Tries by itself in ${left} s.`;
  };
  tell();
  const timer = setInterval(() => {
    left -= 1;
    // Whatever took the box away has begun anew already.
    if (!note.isConnected || signal?.aborted) return clearInterval(timer);
    if (left > 0) return tell();
    clearInterval(timer);
    again();
  }, 1000);
}
