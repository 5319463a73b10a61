// Server-sent events, read with `fetch` instead of `EventSource`: that one tells neither that a token was
// revoked nor that a line is dead, and comments, which show that it is not, never reach the page.
//
// A stream goes on after any fault, with `Last-Event-ID`. While the tab is hidden it ends after a moment:
// a browser has few connections to one server, shared by all tabs.

import { problemOf } from './api.js';
import { learnFromEvent, learnFromHeader } from './clock.js';
import { answered, isGatewayFault, unanswered, whenUp } from './connection.js';

/** The server says something every 15 seconds. */
const SILENCE_MS = 40_000;
const HIDDEN_MS = 30_000;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;

/**
 * Reads events until `signal` is aborted or a listener returns false.
 *
 * @param {string} path
 * @param {Record<string, (data: any) => void | false>} listeners by name of the event
 * @param {AbortSignal} signal
 * @param {() => void} missed called when events may have been missed while the tab was hidden
 */
export async function listen(path, listeners, signal, missed) {
  let lastId = null;
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener('abort', stop, { once: true });
    const unwatch = abortWhenHidden(attempt);
    try {
      const response = await open(path, lastId, attempt.signal);
      wait = FIRST_WAIT_MS;
      const wanted = await read(response.body, attempt, (event) => {
        if (event.id !== null) lastId = event.id;
        const data = event.data ? JSON.parse(event.data) : null;
        learnFromEvent(data?.at);
        return listeners[event.name]?.(data);
      });
      if (!wanted) return;
    } catch (problem) {
      // Nobody is signed in, it may not be seen, or it is gone: no try later is better.
      if (signal.aborted || [401, 403, 404].includes(problem?.status)) return;
      if (!attempt.signal.aborted && !problem?.status) unanswered();
    } finally {
      unwatch();
      signal.removeEventListener('abort', stop);
    }
    if (document.hidden) {
      await whenVisible(signal);
      if (!signal.aborted) missed();
    } else {
      await pause(wait, signal);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      await whenUp();
    }
  }
}

async function open(path, lastId, signal) {
  const headers = { Accept: 'text/event-stream', ...(lastId === null ? {} : { 'Last-Event-ID': lastId }) };
  const response = await fetch(path, { headers, signal, cache: 'no-store' });
  if (isGatewayFault(response)) throw new Error('the gateway has no server');
  answered();
  learnFromHeader(response.headers.get('date'));
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Gives each event to `take`; false once that one wants no more, true at the end of the stream. */
async function read(body, attempt, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let silence = 0;
  try {
    for (;;) {
      clearTimeout(silence);
      silence = setTimeout(() => attempt.abort(), SILENCE_MS);
      const { value, done } = await reader.read();
      if (done) return true;
      const blocks = (rest + value.replaceAll('\r\n', '\n')).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event && take(event) === false) {
          attempt.abort();
          return false;
        }
      }
    }
  } finally {
    clearTimeout(silence);
  }
}

/** An event of the lines between two empty ones; null if they are comments only. */
function parse(block) {
  const event = { name: 'message', id: null, data: '' };
  let something = false;
  for (const line of block.split('\n')) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name === 'event') event.name = value;
    if (name === 'id') event.id = value;
    if (name === 'data') event.data += value;
    something ||= name === 'data' || name === 'event';
  }
  return something ? event : null;
}

function abortWhenHidden(attempt) {
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => attempt.abort(), HIDDEN_MS);
  };
  look();
  document.addEventListener('visibilitychange', look);
  return () => {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', look);
  };
}

/** @returns {Promise<void>} */
function whenVisible(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener('visibilitychange', look);
      resolve();
    };
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', look, { once: true });
  });
}

/**
 * Waits, or until `signal` is aborted.
 *
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
