// The list of batches, newest first, a page at a time.

import { get, withQuery } from '../api.js';
import { fill, h } from '../dom.js';
import { icon } from '../icons.js';
import { may } from '../session.js';
import { showDeadJobs } from '../shell.js';
import { BATCH_STATES } from '../states.js';
import { listen } from '../stream.js';
import { showBatchRows } from './rows.js';

const PAGE = 20;
/** How often batches that are active are looked at again. */
const AGAIN_EVERY_MS = 5000;

/** @param {import('../router.js').Page} page */
export async function batchesView(page) {
  page.head('Batches');
  const state = page.query.get('state') ?? '';
  const after = page.query.get('after') ?? '';

  const rows = h('div');
  const pages = h('div');
  let shownAt = 0;
  let active = false;

  async function show() {
    shownAt = performance.now();
    const found = await get('/v1/batches', { query: { limit: PAGE, state, after }, signal: page.signal });
    active = found.batches.some((batch) => batch.state === 'active');
    if (found.batches.length > 0) showBatchRows(rows, found.batches, 'Batches, newest first');
    else fill(rows, nothing(state));
    fill(pages, pager(state, after, found.next));
  }

  page.refresh = () => {
    show().catch(() => {});
  };
  await show();
  fill(page.body, filter(state), rows, pages);
  listen(
    '/v1/events',
    {
      overview(data) {
        showDeadJobs(data.dead_jobs);
        const due = active || (!after && data.active_batches > 0);
        if (due && performance.now() - shownAt > AGAIN_EVERY_MS) page.refresh();
      },
    },
    page.signal,
    page.refresh,
  );
}

function filter(state) {
  const link = (value, text) =>
    h(
      'a',
      { href: withQuery('/batches', { state: value }), 'aria-current': value === state ? 'true' : null },
      text,
    );
  return h(
    'nav',
    { class: 'choices', 'aria-label': 'State' },
    link('', 'all'),
    BATCH_STATES.map((name) => link(name, name)),
  );
}

function nothing(state) {
  return h(
    'div',
    { class: 'empty' },
    h('p', {}, state ? `No batch is ${state}.` : 'No batch yet.'),
    !state && may('submit') && h('a', { class: 'button primary', href: '/submit' }, 'Submit a batch'),
  );
}

function pager(state, after, next) {
  return h(
    'nav',
    { class: 'pager', 'aria-label': 'Pages' },
    after && h('a', { class: 'button', href: withQuery('/batches', { state }) }, icon('left'), 'Newest'),
    next &&
      h(
        'a',
        { class: 'button', href: withQuery('/batches', { state, after: next }) },
        'Older',
        icon('right'),
      ),
  );
}
