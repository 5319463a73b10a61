// Whether the server can be reached. Requests and streams report here; while it cannot be reached, this
// asks again and again, waiting longer each time, and says when it is back.

import { learnFromHeader } from './clock.js';

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;

/** Tells `down` and `up`. */
export const connection = new EventTarget();

let down = false;
let wait = FIRST_WAIT_MS;
let timer = 0;

/** Answers of a proxy whose server is gone. */
export function isGatewayFault(response) {
  return [502, 504].includes(response.status);
}

/** A request was answered, whatever the answer. */
export function answered() {
  if (!down) return;
  down = false;
  clearTimeout(timer);
  wait = FIRST_WAIT_MS;
  connection.dispatchEvent(new Event('up'));
}

/** A request was not answered. */
export function unanswered() {
  if (down) return;
  down = true;
  connection.dispatchEvent(new Event('down'));
  askLater();
}

/** Asks at once instead of when the wait is over. */
export function askNow() {
  if (!down) return;
  clearTimeout(timer);
  ask();
}

/** Resolves when the server can be reached; at once if it can. */
export function whenUp() {
  return down
    ? new Promise((resolve) => connection.addEventListener('up', resolve, { once: true }))
    : Promise.resolve();
}

function askLater() {
  // Not all browsers at the same moment after a restart.
  timer = setTimeout(ask, wait * (0.75 + Math.random() / 2));
  wait = Math.min(wait * 2, LONGEST_WAIT_MS);
}

async function ask() {
  try {
    const response = await fetch('/v1/session', { cache: 'no-store' });
    if (isGatewayFault(response)) throw new Error('the gateway has no server');
    learnFromHeader(response.headers.get('date'));
    answered();
  } catch {
    askLater();
  }
}

addEventListener('offline', unanswered);
addEventListener('online', askNow);
