// The overview: how fast it goes, what is left, what is wrong, and the newest batches.

import { get } from '../api.js';
import { fill, h } from '../dom.js';
import { showDeadJobs } from '../shell.js';
import { listen } from '../stream.js';
import { showBatchRows } from '../batches/rows.js';
import { charts } from './charts.js';
import { checks } from './checks.js';
import { figures } from './figures.js';
import { firstSteps } from './first_steps.js';

const RECENT = 6;
/** The stream says nothing of single batches. */
const RECENT_EVERY_MS = 5000;

/** @param {import('../router.js').Page} page */
export async function overviewView(page) {
  const { signal } = page;
  page.head('Overview');
  const numbers = figures();
  const history = charts(signal);
  const rows = h('div');
  const recent = h(
    'section',
    { 'aria-labelledby': 'newest', hidden: true },
    h(
      'div',
      { class: 'section-head' },
      h('h2', { id: 'newest' }, 'Newest batches'),
      h('a', { href: '/batches' }, 'All batches'),
    ),
    rows,
  );
  const start = h('div');
  let shownAt = 0;

  async function showRecent() {
    shownAt = performance.now();
    const { batches } = await get('/v1/batches', { query: { limit: RECENT }, signal });
    // Whoever is about to follow a link there is not disturbed.
    if (!start.contains(document.activeElement))
      fill(start, batches.length === 0 && (await firstSteps(signal)));
    recent.hidden = batches.length === 0;
    showBatchRows(rows, batches, 'Newest batches');
  }

  function showOverview(overview) {
    numbers.show(overview);
    showDeadJobs(overview.dead_jobs);
  }

  page.refresh = () => {
    Promise.all([get('/v1/overview', { signal }).then(showOverview), history.load(), showRecent()]).catch(
      () => {},
    );
  };

  const [overview] = await Promise.all([get('/v1/overview', { signal }), showRecent()]);
  showOverview(overview);
  fill(page.body, start, numbers.element, recent, history.element, checks(signal));
  history.load().catch(() => {});
  listen(
    '/v1/events',
    {
      overview(data) {
        showOverview(data);
        history.add(data);
        if (performance.now() - shownAt > RECENT_EVERY_MS) showRecent().catch(() => {});
      },
    },
    signal,
    page.refresh,
  );
}
