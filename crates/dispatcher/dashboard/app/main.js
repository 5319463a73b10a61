// Where the dashboard starts: session, then the page of the address.

import { authority } from './api.js';
import { batchView } from './batch/page.js';
import { batchesView } from './batches/page.js';
import { connection } from './connection.js';
import { deadView } from './dead/page.js';
import { jobView } from './job/page.js';
import { overviewView } from './overview/page.js';
import { problemBox } from './problem.js';
import { leaveFor, reload, startRouter } from './router.js';
import { loadSession, session } from './session.js';
import { countDeadJobs, showSession, startShell } from './shell.js';
import { signInView } from './sign_in.js';
import { submitView } from './submit/page.js';
import { workersView } from './workers/page.js';

/** @type {[RegExp, (page: import('./router.js').Page) => any][]} */
const ROUTES = [
  [/^\/$/, overviewView],
  [/^\/batches$/, batchesView],
  [/^\/batches\/(?<id>[^/]+)$/, batchView],
  [/^\/batches\/(?<id>[^/]+)\/jobs\/(?<index>\d+)$/, jobView],
  [/^\/workers$/, workersView],
  [/^\/dead$/, deadView],
  [/^\/submit$/, submitView],
];

async function start() {
  try {
    await loadSession();
  } catch (problem) {
    // Without a session `authority` has shown the sign-in view already.
    if (problem.status === 401) return;
    leaveFor((main, signal) => {
      main.append(problemBox(problem, { again: start, signal }));
      connection.addEventListener('up', start, { once: true, signal });
    });
    return;
  }
  enter();
}

function enter() {
  showSession(showSignIn);
  reload();
  countDeadJobs();
}

function showSignIn() {
  // A wrong token is told by the form itself.
  if (document.querySelector('form.sign-in')) return;
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  // Whoever was signed in until now is told why that is over.
  const why = session() ? 'Your token is no longer valid: sign in with another one.' : null;
  leaveFor((main) => signInView(main, enter, why));
  document.getElementById('places').hidden = true;
  document.getElementById('account').replaceChildren();
}

startRouter(ROUTES, document.getElementById('main'));
startShell();
authority.addEventListener('unauthorized', showSignIn);
start();
