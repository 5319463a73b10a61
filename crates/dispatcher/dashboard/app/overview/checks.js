// What the dispatcher reaches: checks that fail, with what helps.

import { get } from '../api.js';
import { button, fill, h, prose } from '../dom.js';
import { icon } from '../icons.js';
import { problemBox } from '../problem.js';

/** @param {AbortSignal} signal */
export function checks(signal) {
  const result = h('div', { 'aria-live': 'polite' });

  async function check() {
    fill(result, h('p', { class: 'quiet' }, 'Checking…'));
    try {
      show(result, await get('/v1/doctor', { signal }));
    } catch (problem) {
      if (!signal.aborted) fill(result, problemBox(problem, { again: check, signal }));
    }
  }

  check();
  return h(
    'section',
    { 'aria-labelledby': 'checks' },
    h(
      'div',
      { class: 'section-head' },
      h('h2', { id: 'checks' }, 'Checks'),
      button('Check again', check, { icon: 'again', kind: 'quiet' }),
    ),
    result,
  );
}

function show(result, doctor) {
  const failed = doctor.checks.filter((check) => !check.ok);
  const passed = doctor.checks.filter((check) => check.ok).map((check) => check.name);
  fill(
    result,
    failed.map((check) =>
      h(
        'div',
        { class: 'warning' },
        icon('warning'),
        h(
          'div',
          {},
          h('strong', {}, check.name),
          ' ',
          prose(check.detail),
          check.remedy && h('p', { class: 'remedy' }, prose(check.remedy)),
        ),
      ),
    ),
    passed.length > 0 && h('p', { class: 'quiet' }, icon('check'), ` In order: ${passed.join(', ')}`),
  );
}
