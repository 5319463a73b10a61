// A job: its image beside the plain one, where the model looked, how it went, and what it was made of.

import { get } from '../api.js';
import { button, fill, h, prose } from '../dom.js';
import { batchName, counted, score, words } from '../format.js';
import { icon } from '../icons.js';
import { announce } from '../notices.js';
import { go } from '../router.js';
import { stateTag } from '../states.js';
import { listen, pause } from '../stream.js';
import { curves } from './curves.js';
import { heatMaps } from './heat.js';
import { images } from './images.js';
import { metadata } from './metadata.js';
import { timeline } from './timeline.js';

const OPEN_STATES = ['waiting', 'queued', 'running', 'retrying'];
/** The events of the batch tell of its sums only, and may come four times a second. */
const LOOK_EVERY_MS = 2000;

/** @param {import('../router.js').Page} page */
export async function jobView(page) {
  const { id } = page.params;
  const { signal } = page;
  const index = Number(page.params.index);
  const path = `/v1/batches/${id}/jobs`;
  const address = (n) => `/batches/${id}/jobs/${n}`;
  page.head(`Job ${index}`);
  const [batch, first] = await Promise.all([
    get(`/v1/batches/${id}`, { signal }),
    get(`${path}/${index}`, { signal }),
  ]);
  let job = first;
  const state = h('div', { class: 'job-state' });
  const content = h('div', { class: 'page' });

  page.head(`Job ${index}`, neighbours(batch, index, address));
  fill(
    page.body,
    h(
      'p',
      { class: 'trail' },
      h('a', { href: `/batches/${id}` }, icon('left'), batchName(batch)),
      `, ${counted(batch.jobs, 'job')}`,
    ),
    h('p', { class: 'prompt' }, job.spec.prompt),
    state,
    content,
  );

  async function show() {
    const other = job.compared_with === null ? null : await get(`${path}/${job.compared_with}`, { signal });
    fill(state, stateOf(job));
    fill(
      content,
      (job.outputs.image || other?.outputs.image) && images(id, job, other),
      job.maps.length > 0 && job.outputs.image && heatMaps(id, job),
      curves(job, signal),
      h('div', { class: 'two' }, timeline(job), metadata(job)),
    );
  }

  async function reloadJob() {
    const before = job;
    job = await get(`${path}/${index}`, { signal });
    if (job.state !== before.state) announce(`The job is ${job.state}.`);
    // The curves are drawn anew only when there is something else to see.
    if (job.state === before.state && job.timeline.length === before.timeline.length)
      fill(state, stateOf(job));
    else await show();
  }

  page.refresh = () => {
    reloadJob().catch(() => {});
  };
  document.addEventListener('keydown', (event) => turn(event, batch, index, address), { signal });
  await show();
  if (OPEN_STATES.includes(job.state)) follow();

  /** Looks again while the job is open: as it runs, and when something has happened in its batch. */
  async function follow() {
    const done = new AbortController();
    const both = AbortSignal.any([signal, done.signal]);
    let stale = false;
    const note = () => {
      stale = true;
    };
    listen(`/v1/batches/${id}/events`, { progress: note }, both, page.refresh);
    while (OPEN_STATES.includes(job.state)) {
      await pause(LOOK_EVERY_MS, both);
      if (both.aborted) return;
      if (document.hidden || !(stale || job.state === 'running')) continue;
      stale = false;
      await reloadJob().catch(note);
    }
    done.abort();
  }
}

function stateOf(job) {
  const { running } = job;
  return [
    stateTag(job.state),
    job.attempt > 1 && h('span', { class: 'quiet' }, `attempt ${job.attempt}`),
    running && [
      h('progress', { max: running.steps, value: running.step, 'aria-label': 'Steps' }),
      h('span', {}, `step ${running.step} of ${running.steps} on ${running.worker}`),
      h('span', { class: 'quiet' }, runningScores(job)),
    ],
    job.failure &&
      h(
        'p',
        { class: 'warning' },
        icon('warning'),
        h(
          'span',
          {},
          job.dead && h('strong', {}, `Dead: ${words(job.dead)}. `),
          h('code', {}, job.failure.code),
          ' ',
          prose(job.failure.message),
        ),
      ),
  ];
}

/** `lion 0.81, crown 0.64, loss 0.36` */
function runningScores({ running, spec }) {
  const scores = spec.subjects.map(({ word }, n) => `${word} ${score(running.scores[n])}`);
  return [...scores, running.loss !== null && `loss ${score(running.loss)}`].filter(Boolean).join(', ');
}

function neighbours(batch, index, address) {
  const link = (n, text, name, keys) =>
    n >= 0 && n < batch.jobs
      ? h(
          'a',
          { class: 'button', href: address(n), 'aria-keyshortcuts': keys, title: `${text} job (${keys})` },
          name === 'left' && icon(name),
          text,
          name === 'right' && icon(name),
        )
      : button(text, () => {}, { disabled: true });
  return [link(index - 1, 'Previous', 'left', 'ArrowLeft'), link(index + 1, 'Next', 'right', 'ArrowRight')];
}

function turn(event, batch, index, address) {
  const busy = event.target.closest('input, textarea, select, dialog, [tabindex="0"]');
  if (busy || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const to = { ArrowLeft: index - 1, ArrowRight: index + 1 }[event.key];
  if (to === undefined || to < 0 || to >= batch.jobs) return;
  event.preventDefault();
  go(address(to), { replace: true });
}
