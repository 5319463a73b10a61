// Dead jobs by batch, reason and code: why, and how to go on.

import { get, post } from '../api.js';
import { button, fill, h, prose } from '../dom.js';
import { batchName, count, counted, shortId, words } from '../format.js';
import { tell, tellProblem } from '../notices.js';
import { go } from '../router.js';
import { may } from '../session.js';
import { countDeadJobs, showDeadJobs } from '../shell.js';
import { listen } from '../stream.js';
import { keepDraft } from '../submit/draft.js';
import { jobsOf, lineOf } from '../lines.js';

/** What helps, by reason. */
const ADVICE = {
  invalid: 'The job itself is wrong, or its model is gone: edit it, or push the model again.',
  attempts: 'It failed as often as it may: replay it once the cause is mended.',
  capacity: 'It fits into no worker’s memory: make it smaller, or start a larger worker.',
  timeout: 'It took too long: fewer steps or a smaller size may help.',
  poison: 'Three workers began it and were not heard of again: look at their logs before you replay it.',
  incompatible: 'No worker could read it: replay it once the workers are of the newest version.',
  broker: 'The broker gave it up: replay it.',
};

const PAGE = 500;

/** @param {import('../router.js').Page} page */
export async function deadView(page) {
  const { signal } = page;
  const only = page.query.get('batch') ?? '';
  page.head('Dead jobs');

  async function show() {
    const { groups } = await get('/v1/dead', { query: { batch: only }, signal });
    const batches = [...new Set(groups.map((group) => group.batch))];
    // A name is an extra: a batch that cannot be read is shown by its id.
    const names = await Promise.all(
      batches.map((id) =>
        get(`/v1/batches/${id}`, { signal })
          .then(batchName)
          .catch(() => shortId(id)),
      ),
    );
    fill(
      page.body,
      only && h('p', {}, 'Of one batch only. ', h('a', { href: '/dead' }, 'Show all')),
      groups.length === 0 && h('div', { class: 'empty' }, h('p', {}, 'No job is dead.')),
      batches.map((id, n) =>
        batchGroups(
          id,
          names[n],
          groups.filter((group) => group.batch === id),
          show,
        ),
      ),
    );
    countDeadJobs();
  }

  page.refresh = () => {
    show().catch(() => {});
  };
  await show();
  // The number beside the place only: the list stays as it is while one chooses from it.
  listen('/v1/events', { overview: (data) => showDeadJobs(data.dead_jobs) }, signal, page.refresh);
}

function batchGroups(id, name, groups, again) {
  return h(
    'section',
    { class: 'card' },
    h(
      'div',
      { class: 'section-head' },
      h('h2', {}, h('a', { href: `/batches/${id}` }, name)),
      h(
        'span',
        { class: 'quiet' },
        counted(
          groups.reduce((n, group) => n + group.jobs, 0),
          'dead job',
        ),
      ),
    ),
    groups.map((group) => deadGroup(group, again)),
  );
}

function deadGroup(group, again) {
  const chosen = new Set();
  const replay = button(replayText(), () => run(replayJobs), { icon: 'again' });
  const edit = button(editText(), () => run(editJobs), { icon: 'pencil' });
  const hidden = group.jobs - group.indices.length;

  function replayText() {
    return chosen.size ? `Replay ${count(chosen.size)} selected` : `Replay all ${count(group.jobs)}`;
  }
  function editText() {
    return chosen.size ? `Edit ${count(chosen.size)} as a child batch` : 'Edit all as a child batch';
  }
  function choose(index, on) {
    if (on) chosen.add(index);
    else chosen.delete(index);
    replay.lastChild.textContent = replayText();
    edit.lastChild.textContent = editText();
  }

  async function run(work) {
    replay.disabled = true;
    edit.disabled = true;
    try {
      await work();
    } catch (problem) {
      tellProblem(problem);
    }
    replay.disabled = false;
    edit.disabled = false;
  }

  async function replayJobs() {
    const which = chosen.size ? { indices: [...chosen] } : { reason: group.reason, code: group.code };
    const { jobs } = await post('/v1/dead/replay', { json: { batch: group.batch, ...which } });
    tell(`${counted(jobs, 'job')} replayed.`);
    await again();
  }

  async function editJobs() {
    const indices = chosen.size ? [...chosen] : await allOf(group);
    const lines = (await jobsOf(group.batch, indices)).map(lineOf);
    keepDraft({ parent: group.batch, lines: lines.map((line) => JSON.stringify(line)).join('\n') });
    go('/submit');
  }

  return h(
    'div',
    { class: 'dead-group' },
    h(
      'h3',
      {},
      words(group.reason),
      ' ',
      h('code', {}, group.code),
      ' ',
      h('span', { class: 'quiet' }, counted(group.jobs, 'job')),
    ),
    h('p', {}, prose(group.example)),
    h('p', { class: 'remedy' }, ADVICE[group.reason]),
    h(
      'ul',
      { class: 'indices', 'aria-label': 'Jobs' },
      group.indices.map((index) =>
        h(
          'li',
          {},
          may('submit') &&
            h('input', {
              type: 'checkbox',
              'aria-label': `Select job ${index}`,
              on: { change: (event) => choose(index, event.target.checked) },
            }),
          h('a', { href: `/batches/${group.batch}/jobs/${index}` }, `job ${index}`),
        ),
      ),
      hidden > 0 &&
        h(
          'li',
          {},
          h('a', { href: `/batches/${group.batch}?state=dead&sort=index` }, `and ${count(hidden)} more`),
        ),
    ),
    may('submit') && h('div', { class: 'row' }, replay, edit),
  );
}

/** The indices of all jobs of a group: the list of groups names the first ones only. */
async function allOf(group) {
  if (group.jobs === group.indices.length) return group.indices;
  const found = [];
  let after = null;
  do {
    const query = { state: 'dead', sort: 'index', limit: PAGE, after };
    const page = await get(`/v1/batches/${group.batch}/jobs`, { query });
    const same = page.jobs.filter((job) => job.dead === group.reason && job.failure?.code === group.code);
    found.push(...same.map((job) => job.index));
    after = page.next;
  } while (after);
  return found;
}
