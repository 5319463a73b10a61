// What surrounds every page: the places to go, who is signed in, and whether the server can be reached.

import { get } from './api.js';
import { askNow, connection } from './connection.js';
import { button, fill, h } from './dom.js';
import { count } from './format.js';
import { icon } from './icons.js';
import { announce, tellProblem } from './notices.js';
import { refresh } from './router.js';
import { may, session, signOut } from './session.js';

const PLACES = [
  ['/', 'Overview'],
  ['/batches', 'Batches'],
  ['/workers', 'Workers'],
  ['/dead', 'Dead jobs'],
];

/** Watches the connection, and marks the place in the navigation. */
export function startShell() {
  connection.addEventListener('down', showLost);
  connection.addEventListener('up', showFound);
  addEventListener('excite:page', markPlace);
}

/** Shows the places and the account of a session, or nothing if there is none. */
export function showSession(whenSignedOut) {
  const now = session();
  const places = document.getElementById('places');
  places.hidden = !now;
  fill(
    places,
    now && PLACES.map(([path, text]) => h('a', { href: path }, text)),
    now && may('submit') && h('a', { href: '/submit', class: 'submit' }, icon('plus'), 'Submit'),
  );
  fill(
    document.getElementById('account'),
    now?.tokens && h('span', { class: 'who' }, now.name ?? 'signed in'),
    now?.tokens && button('Sign out', () => leave(whenSignedOut), { icon: 'leave', kind: 'quiet' }),
  );
  fill(document.getElementById('foot'), now && `Excite ${now.version}`);
  markPlace();
}

/** Shows how many jobs are dead beside the place where they are. */
export function showDeadJobs(n) {
  const link = document.querySelector('#places a[href="/dead"]');
  if (!link) return;
  fill(link, 'Dead jobs', n > 0 && h('span', { class: 'badge' }, count(n)));
}

async function leave(whenSignedOut) {
  try {
    await signOut();
    whenSignedOut();
  } catch (problem) {
    tellProblem(problem);
  }
}

function markPlace() {
  const { pathname } = location;
  for (const link of document.querySelectorAll('#places a')) {
    const path = link.getAttribute('href');
    const here = path === '/' ? pathname === '/' : pathname === path || pathname.startsWith(`${path}/`);
    if (here) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function showLost() {
  fill(
    document.getElementById('banner'),
    icon('warning'),
    h('span', {}, 'Connection lost, trying again.'),
    button('Try now', askNow, { kind: 'quiet' }),
  );
}

function showFound() {
  fill(document.getElementById('banner'));
  announce('Connection is back.');
  refresh();
}

/** Asks once how many jobs are dead; pages with a live overview keep the number right from then on. */
export async function countDeadJobs() {
  try {
    showDeadJobs((await get('/v1/overview')).dead_jobs);
  } catch {
    // The number is an extra: the page itself says what is wrong.
  }
}
