// Addresses and pages. A page is built once for each visit, and what it started ends with its `signal`.

import { fill, h } from './dom.js';
import { problemBox } from './problem.js';

/**
 * @typedef {object} Page what a view gets
 * @property {HTMLElement} body where the view puts its content
 * @property {Record<string, string>} params parts of the path
 * @property {URLSearchParams} query
 * @property {AbortSignal} signal aborted when the page is left
 * @property {(title: string, ...actions: any[]) => void} head sets heading, actions beside it, and title
 * @property {() => void} refresh shows the newest; set by views that can do so in place
 */

let routes = [];
let main;
let leaving = new AbortController();
let current = null;

/**
 * @param {[RegExp, (page: Page) => any][]} table patterns with named groups, and their views
 * @param {HTMLElement} element
 */
export function startRouter(table, element) {
  routes = table;
  main = element;
  addEventListener('popstate', () => show(false));
  document.addEventListener('click', follow);
}

/** Goes to another page. */
export function go(address, { replace = false } = {}) {
  history[replace ? 'replaceState' : 'pushState'](null, '', address);
  show(true);
}

/** Notes in the address what the page shows, without going anywhere. */
export function noteAddress(address) {
  history.replaceState(history.state, '', address);
}

/** Builds the page of the address anew. */
export function reload() {
  show(false);
}

/** Ends the page, and shows something else in its place. */
export function leaveFor(view) {
  leaving.abort();
  leaving = new AbortController();
  current = null;
  fill(main);
  view(main, leaving.signal);
}

/** Shows the newest of the page. */
export function refresh() {
  current?.refresh();
}

function follow(event) {
  const link = event.target.closest?.('a[href]');
  const modified = event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0;
  if (!link || modified || event.defaultPrevented || link.target || link.hasAttribute('download')) return;
  const url = new URL(link.href);
  const ours = url.origin === location.origin && !/^\/(v1|assets)\//.test(url.pathname);
  if (!ours || (url.hash && url.pathname === location.pathname)) return;
  event.preventDefault();
  go(url.pathname + url.search);
}

async function show(moveFocus) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const path = location.pathname;
  const found = routes.find(([pattern]) => pattern.test(path));
  const heading = h('h1', { tabindex: '-1' });
  const actions = h('div', { class: 'row actions' });
  const body = h('div', { class: 'page' }, h('p', { class: 'loading' }, 'Loading…'));
  let headed = false;
  /** @type {any} */
  const page = {
    body,
    signal,
    params: found?.[0].exec(path).groups ?? {},
    query: new URLSearchParams(location.search),
    refresh: () => {},
    head(title, ...controls) {
      if (signal.aborted) return;
      const focused = [...actions.children].indexOf(document.activeElement);
      fill(heading, title);
      fill(actions, ...controls);
      // A button that was pressed may have made way for another one.
      if (focused >= 0) actions.children[focused]?.focus();
      // Not before there is a text: an empty heading says nothing to those who hear it.
      if (moveFocus && !headed) heading.focus({ preventScroll: true });
      headed = true;
      document.title = title === 'Overview' ? 'Excite' : `${title} – Excite`;
    },
  };
  current = page;
  fill(main, h('div', { class: 'head' }, heading, actions), body);
  dispatchEvent(new Event('excite:page'));
  if (moveFocus) scrollTo(0, 0);
  try {
    await (found ? found[1](page) : missing(page));
  } catch (problem) {
    if (signal.aborted || problem.status === 401) return;
    if (!problem.status && problem.code !== 'unreachable') console.error(problem);
    if (!heading.textContent) page.head(problem.title ?? 'Something is wrong');
    fill(body, problemBox(problem, { again: reload, signal }));
    page.refresh = reload;
  }
}

function missing(page) {
  page.head('No such page');
  fill(page.body, h('p', {}, 'Nothing is at this address. ', h('a', { href: '/' }, 'Go to the overview')));
}
