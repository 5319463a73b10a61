// What to do first, shown while there is no batch.

import { get } from '../api.js';
import { h } from '../dom.js';
import { icon } from '../icons.js';
import { may } from '../session.js';

/** States of a worker that will take jobs, now or in a moment. */
const STARTED = ['starting', 'ready'];

/** @param {AbortSignal} signal */
export async function firstSteps(signal) {
  const [{ workers }, { models }] = await Promise.all([
    get('/v1/workers', { signal }),
    get('/v1/models', { signal }),
  ]);
  const steps = [
    [models.length > 0, 'Give the cluster a model', h('code', {}, 'excite model push emoji')],
    [workers.some((worker) => STARTED.includes(worker.state)), 'Start a worker', h('code', {}, 'excite-worker')],
    [
      false,
      'Submit your first batch',
      may('submit')
        ? h('a', { class: 'button primary', href: '/submit' }, 'Submit a batch')
        : h('span', { class: 'quiet' }, 'Your token may look only: ask for one that may submit.'),
    ],
  ];
  const next = steps.findIndex(([done]) => !done);
  return h(
    'section',
    { class: 'card first-steps', 'aria-labelledby': 'first-steps' },
    h('h2', { id: 'first-steps' }, 'No batch yet'),
    h('p', {}, 'A batch is a list of prompts. Workers make an image of each, and here you watch them come.'),
    h(
      'ol',
      {},
      steps.map(([done, text, what], n) =>
        h(
          'li',
          { class: done ? 'done' : n === next ? 'next' : null },
          h('span', { class: 'step-mark' }, done ? icon('check') : String(n + 1)),
          h('span', {}, text, done && h('span', { class: 'hidden-text' }, ' (done)')),
          !done && what,
        ),
      ),
    ),
  );
}
