// The workers: what each runs, and how far it is.

import { get, post } from '../api.js';
import { timeAgo } from '../clock.js';
import { ask } from '../dialogs.js';
import { button, fill, h } from '../dom.js';
import { factList } from '../facts.js';
import { bytes, counted, modelName, score } from '../format.js';
import { icon } from '../icons.js';
import { tell } from '../notices.js';
import { may } from '../session.js';
import { showDeadJobs } from '../shell.js';
import { stateTag } from '../states.js';
import { listen } from '../stream.js';

/** @param {import('../router.js').Page} page */
export async function workersView(page) {
  const { signal } = page;
  page.head('Workers');
  const summary = h('p', { class: 'summary' });
  const note = h('div');
  const list = h('ul', { class: 'workers', 'aria-label': 'Workers' });
  /** By name: a card is changed in place, so that the focus stays while the steps go on. */
  const cards = new Map();

  function show(data) {
    const ready = data.workers.filter((worker) => worker.state === 'ready').length;
    fill(summary, `${counted(data.workers.length, 'worker')}, ${ready} ready`);
    fill(note, data.note && h('p', { class: 'warning' }, icon('warning'), data.note));
    for (const [name, card] of cards) {
      if (data.workers.some((worker) => worker.worker === name)) continue;
      card.element.remove();
      cards.delete(name);
    }
    for (const worker of data.workers) {
      if (!cards.has(worker.worker)) {
        cards.set(worker.worker, workerCard(worker.worker));
        list.append(cards.get(worker.worker).element);
      }
      cards.get(worker.worker).show(worker);
    }
    if (data.workers.length === 0) {
      fill(
        note,
        h(
          'div',
          { class: 'empty' },
          h('p', {}, 'No worker has been heard of.'),
          h('p', {}, 'Start one: ', h('code', {}, 'excite-worker')),
        ),
      );
    }
  }

  page.refresh = () => {
    get('/v1/workers', { signal })
      .then(show)
      .catch(() => {});
  };
  show(await get('/v1/workers', { signal }));
  fill(page.body, summary, note, list);
  listen(
    '/v1/events',
    { workers: show, overview: (data) => showDeadJobs(data.dead_jobs) },
    signal,
    page.refresh,
  );
}

function workerCard(name) {
  const state = h('span');
  const facts = factList();
  const jobs = h('ul', { class: 'worker-jobs' });
  const drain =
    may('admin') && button('Drain', () => askToDrain(name), { icon: 'drain', label: `Drain ${name}` });
  return {
    element: h(
      'li',
      { class: 'card worker' },
      h('div', { class: 'section-head' }, h('h2', {}, name), state, drain),
      jobs,
      facts.element,
    ),
    show(worker) {
      fill(state, stateTag(worker.state));
      if (drain) drain.hidden = worker.state === 'draining';
      showJobs(jobs, worker);
      facts.show(factsOf(worker));
    },
  };
}

function factsOf(worker) {
  return [
    ['Models', worker.models.map(modelName).join(', ') || 'none yet'],
    ['Memory', bytes(worker.memory_bytes)],
    ['Memory of models', bytes(worker.model_bytes)],
    ['Together', microBatches(worker)],
    ['Kind', worker.kind],
    ['Class', worker.class],
    ['Pool', worker.pool],
    ['Started', timeAgo(worker.started_at)],
    ['Version', worker.version],
  ];
}

/** How many images of each model and size are made together, and why. */
function microBatches(worker) {
  const chosen = (worker.micro_batches ?? []).map(
    ({ model, width, height, jobs, reason }) =>
      `${modelName(model)} ${width}×${height}: up to ${jobs} (${reason})`,
  );
  return chosen.join('; ') || 'nothing measured yet';
}

function showJobs(list, worker) {
  // A link that has the focus stays, as long as the same jobs run.
  const same =
    worker.jobs.map((job) => job.job).join() === [...list.children].map((row) => row.dataset.job).join();
  if (!same || worker.jobs.length === 0) {
    fill(
      list,
      worker.jobs.length
        ? worker.jobs.map(jobRow)
        : h(
            'li',
            { class: 'quiet' },
            worker.state === 'ready' ? `runs nothing, ${counted(worker.slots, 'slot')} free` : 'runs nothing',
          ),
    );
  }
  worker.jobs.forEach((job, n) => showJob(list.children[n], job));
}

function jobRow({ job }) {
  const dash = job.lastIndexOf('-');
  const [batch, index] = [job.slice(0, dash), Number(job.slice(dash + 1))];
  return h(
    'li',
    { 'data-job': job },
    h('a', { href: `/batches/${batch}/jobs/${index}` }, `job ${index}`),
    h('progress', { 'aria-label': `Steps of job ${index}` }),
    h('span', { class: 'number' }),
  );
}

function showJob(row, job) {
  const [, bar, text] = row.children;
  bar.max = job.steps;
  bar.value = job.step;
  const scores = job.scores.filter((n) => n !== null);
  const weakest = scores.length ? `, weakest ${score(Math.min(...scores))}` : '';
  text.textContent = `step ${job.step} of ${job.steps}${weakest}`;
}

function askToDrain(name) {
  return ask({
    title: `Drain ${name}?`,
    content: h(
      'p',
      {},
      'It finishes what it runs, takes no further job, and ends. To have it back, start it again.',
    ),
    confirm: 'Drain the worker',
    danger: true,
    work: async () => {
      await post(`/v1/workers/${encodeURIComponent(name)}/drain`);
      tell(`${name} finishes what it runs and ends.`);
    },
  });
}
