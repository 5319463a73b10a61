// The images of a batch, a page at a time as one scrolls, and new ones as they are made.
// Not here: what is done with selected ones (`selected.js`).

import { get, withQuery } from '../api.js';
import { button, fill, h } from '../dom.js';
import { count, counted } from '../format.js';
import { announce } from '../notices.js';
import { problemBox } from '../problem.js';
import { noteAddress } from '../router.js';
import { concluded, inState } from '../states.js';
import { jobCard } from './card.js';
import { filterForm, filtersOf } from './filters.js';
import { galleryKeys } from './keys.js';
import { selectedBar } from './selected.js';
import { Selection } from './selection.js';

const PAGE = 60;
/** Events may come four times a second. */
const NEW_EVERY_MS = 1000;

/** What was shown when a gallery was left, so that the way back from a job leads to the same place. */
let left = null;

/**
 * @param {import('../router.js').Page} page
 * @param {() => any} batch as it is now
 */
export function gallery(page, batch) {
  const { signal } = page;
  const { id } = page.params;
  const selection = new Selection();
  let filters = filtersOf(page.query);
  /** In the order shown. A job may come again, once it has been replayed: the later counts. */
  let jobs = new Map();
  let next = null;
  /** Whether all that there was has come; an active batch has more later. */
  let atEnd = false;
  let loading = null;
  let waiting = false;

  const list = h('ul', { class: 'gallery', 'aria-label': 'Images' });
  const form = h('div');
  const status = h('p', { class: 'quiet' });
  const more = button('Show more', () => load());
  const news = h('div');
  const trouble = h('div');
  const sentinel = h('div', { class: 'row center' }, more);
  const keys = galleryKeys(list, selection, () => [...jobs.keys()]);
  const bar = selectedBar(selection, batch);

  function showForm() {
    fill(form, filterForm(filters, change));
  }

  function change(fresh) {
    filters = fresh;
    noteAddress(withQuery(`/batches/${id}`, filters));
    showForm();
    restart().then(() => announce(status.textContent));
  }

  function restart() {
    jobs = new Map();
    next = null;
    atEnd = false;
    loading = null;
    fill(list);
    fill(news);
    return load();
  }

  /** Fetches the next page; one at a time. */
  function load() {
    loading ??= fetchPage().finally(() => {
      loading = null;
    });
    return loading;
  }

  async function fetchPage() {
    const asked = filters;
    fill(trouble);
    try {
      const query = { ...asked, after: next, limit: PAGE };
      const found = await get(`/v1/batches/${id}/jobs`, { query, signal });
      if (asked !== filters) return;
      next = found.next ?? next;
      atEnd = found.next === null || found.jobs.length < PAGE;
      found.jobs.forEach(add);
      tellStatus();
    } catch (problem) {
      if (!signal.aborted) fill(trouble, problemBox(problem, { again: load, signal }));
    }
  }

  function add(job) {
    const card = jobCard(id, job);
    const before = jobs.has(job.index) && list.querySelector(`[data-index="${job.index}"]`);
    if (before) before.replaceWith(card);
    else list.append(card);
    jobs.set(job.index, job);
    keys.added(card);
  }

  function tellStatus() {
    sentinel.hidden = atEnd;
    // It tells of changes only, and a short page leaves the sentinel where it was: in view.
    watcher.unobserve(sentinel);
    watcher.observe(sentinel);
    if (jobs.size > 0) status.textContent = shownText();
    else if (!atEnd) status.textContent = 'Loading…';
    else
      status.textContent = isFiltered()
        ? 'No job is like that.'
        : 'No image yet: they come here as they are made.';
  }

  function shownText() {
    if (atEnd) return `${counted(jobs.size, 'job')} shown`;
    return isFiltered()
      ? `${counted(jobs.size, 'job')} shown, more below`
      : `${count(jobs.size)} of ${count(concluded(batch()))} shown`;
  }

  function isFiltered() {
    return Object.entries(filters).some(([name, value]) => name !== 'sort' && value);
  }

  /** Takes over what was shown when this gallery was left; false if another one was. */
  function restore() {
    if (left?.address !== location.pathname + location.search) return false;
    ({ next, atEnd } = left);
    left.jobs.forEach(add);
    tellStatus();
    const { scroll } = left;
    requestAnimationFrame(() => scrollTo(0, scroll));
    return true;
  }

  // While the page is still shown: afterwards the address is another one's.
  const remember = () => {
    left = {
      address: location.pathname + location.search,
      jobs: [...jobs.values()],
      next,
      atEnd,
      scroll: scrollY,
    };
  };
  list.addEventListener('click', remember);

  const watcher = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting) && !atEnd && jobs.size > 0) load();
    },
    { rootMargin: '600px' },
  );
  signal.addEventListener('abort', () => watcher.disconnect(), { once: true });
  showForm();

  return {
    element: h(
      'section',
      { 'aria-labelledby': 'images' },
      h('div', { class: 'section-head' }, h('h2', { id: 'images' }, 'Images'), status),
      form,
      h('p', { class: 'hint keys-hint' }, 'Arrow keys move, Space selects, Shift extends, Enter opens.'),
      news,
      list,
      trouble,
      sentinel,
      bar,
    ),
    load: () => (restore() && batch().state !== 'active' ? undefined : load()),
    /** Shows what has come since. */
    refresh: () => (filters.sort ? offer() : load()),
    /** Takes note of a progress of the batch. */
    progressed(before, after) {
      const fresh = concluded(after) - concluded(before);
      if (fresh === 0 && inState(before, 'dead') === inState(after, 'dead')) return;
      if (filters.sort) offer(after);
      else if (atEnd) loadSoon();
      else tellStatus();
    },
  };

  /** Loads once for all that ends within a moment. */
  function loadSoon() {
    if (waiting) return;
    waiting = true;
    setTimeout(() => {
      waiting = false;
      if (!signal.aborted) load();
    }, NEW_EVERY_MS);
  }

  /** In these orders new images have their places anywhere: the reader says when they come in. */
  function offer(after = batch()) {
    const missing = isFiltered() ? 0 : concluded(after) - jobs.size;
    const text = missing > 0 && atEnd ? `Show ${counted(missing, 'new job')}` : 'Show the newest';
    fill(news, h('div', { class: 'row center' }, button(text, restart, { icon: 'again' })));
  }
}
