// A batch: its progress, what can be done with it, and its images as they are made.

import { get, withQuery } from '../api.js';
import { timeAgo } from '../clock.js';
import { fill, h } from '../dom.js';
import { factList } from '../facts.js';
import { batchName, bytes, count, counted, duration, modelName, words } from '../format.js';
import { icon } from '../icons.js';
import { announce } from '../notices.js';
import { go } from '../router.js';
import { inState, percent, showStateBar, stateLegend, stateTag } from '../states.js';
import { listen } from '../stream.js';
import { batchActions } from './actions.js';
import { gallery } from './gallery.js';

/** @param {import('../router.js').Page} page */
export async function batchView(page) {
  const { id } = page.params;
  const { signal } = page;
  const path = `/v1/batches/${id}`;
  let batch = await get(path, { signal });

  const bar = h('div', { class: 'bar tall', role: 'img' });
  const legend = h('ul', { class: 'legend' });
  const state = h('p', { class: 'summary' });
  const facts = factList();
  const dead = h('div');
  const images = gallery(page, () => batch);

  function show() {
    page.head(batchName(batch), batchActions(batch, update));
    showProgress();
    facts.show(factsOf(batch));
  }

  function showProgress() {
    showStateBar(bar, batch);
    fill(legend, stateLegend(batch));
    fill(state, summary(batch));
    fill(dead, inState(batch, 'dead') > 0 && deadNotice(batch));
  }

  /** Takes a batch as the server has it now. */
  function update(fresh) {
    batch = fresh;
    show();
  }

  async function reloadBatch() {
    update(await get(path, { signal }));
  }

  page.refresh = () => {
    reloadBatch()
      .then(images.refresh)
      .catch(() => {});
  };

  show();
  fill(
    page.body,
    h('section', { class: 'card batch-progress', 'aria-label': 'Progress' }, state, bar, legend, dead),
    h('details', { class: 'card' }, h('summary', {}, 'About this batch'), facts.element),
    images.element,
  );
  images.load();

  listen(
    `${path}/events`,
    {
      progress(data) {
        const before = batch;
        batch = { ...batch, tally: data.tally, state: data.state };
        if (data.state === before.state) {
          showProgress();
        } else {
          announce(`The batch is ${data.state}.`);
          // Whatever else comes with the change is not in the event. The answer may be of a moment
          // before it, and no other event need come: what was told last holds.
          get(path, { signal })
            .then((now) => update({ ...now, tally: batch.tally, state: batch.state }))
            .catch(() => {});
        }
        images.progressed(before, batch);
      },
      gone() {
        announce('The batch was deleted.');
        go('/batches', { replace: true });
        return false;
      },
    },
    signal,
    page.refresh,
  );
}

function summary(batch) {
  const { tally } = batch;
  const open = batch.state === 'active' || batch.state === 'paused';
  return [
    stateTag(batch.state),
    h('strong', {}, percent(batch)),
    h('span', {}, ` of ${counted(batch.jobs, 'job')}`),
    open &&
      batch.gpu_seconds_left !== null &&
      h('span', {}, `${duration(batch.gpu_seconds_left)} of GPU time left`),
    tally && h('span', {}, `${bytes(tally.bytes)} stored`),
    tally?.retries > 0 && h('span', {}, counted(tally.retries, 'retry', 'retries')),
    tally?.preemptions > 0 && h('span', {}, counted(tally.preemptions, 'preemption')),
  ];
}

function factsOf(batch) {
  return [
    ['Id', h('code', {}, batch.id)],
    ['Submitted', timeAgo(batch.created_at)],
    batch.finished_at && ['Ended', timeAgo(batch.finished_at)],
    ['Lines', count(batch.lines)],
    ['Model', modelName(batch.model)],
    ['Class of workers', batch.class],
    ['Lane', batch.lane],
    ['Weight', count(batch.weight)],
    ['Compared with plain SD', batch.compare ? 'yes' : 'no'],
    ['Attention pictures', batch.attention ? 'yes' : 'no'],
    ['Traces', batch.trace ? 'yes' : 'no'],
    batch.parent && ['Parent', h('a', { href: `/batches/${batch.parent}` }, batch.parent)],
    ...Object.entries(batch.warnings).map(([code, lines]) => [
      `Warning: ${words(code)}`,
      counted(lines, 'line'),
    ]),
    [
      'Results',
      h(
        'a',
        { href: `/v1/batches/${batch.id}/results`, download: `${batch.id}.jsonl` },
        'one JSON line a job',
      ),
    ],
  ].filter(Boolean);
}

function deadNotice(batch) {
  const reasons = Object.entries(batch.tally.dead)
    .map(([reason, n]) => `${count(n)} ${words(reason)}`)
    .join(', ');
  return h(
    'p',
    { class: 'warning' },
    icon('warning'),
    h(
      'span',
      {},
      `${counted(inState(batch, 'dead'), 'job is', 'jobs are')} dead (${reasons}). `,
      h('a', { href: withQuery('/dead', { batch: batch.id }) }, 'See why, and replay them'),
    ),
  );
}
