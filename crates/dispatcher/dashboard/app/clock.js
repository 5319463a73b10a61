// The server's time. The browser's own clock may be wrong, so it only ever measures how much time has
// passed since the server said what time it is.

import { h } from './dom.js';
import { duration } from './format.js';

/** `Date` headers have whole seconds: smaller differences say nothing. */
const HEADER_PRECISION_MS = 1500;
const REDRAW_MS = 5000;

/** Server time minus `performance.now()`; null until the server has answered once. */
let offset = null;

/** Takes the time of a `Date` header. */
export function learnFromHeader(text) {
  const at = Date.parse(text ?? '');
  if (Number.isNaN(at)) return;
  // On average half a second has passed since the second began.
  const found = at + 500 - performance.now();
  if (offset === null || Math.abs(found - offset) > HEADER_PRECISION_MS) offset = found;
}

/** Takes the time that an event says it was sent. */
export function learnFromEvent(text) {
  const at = Date.parse(text ?? '');
  if (!Number.isNaN(at)) offset = at - performance.now();
}

/** The server's time in milliseconds, or null while nobody knows it. */
export function serverNow() {
  return offset === null ? null : performance.now() + offset;
}

/** Seconds from an instant of the server until now, or null. */
export function secondsSince(text) {
  const now = serverNow();
  const at = Date.parse(text ?? '');
  return now === null || Number.isNaN(at) ? null : Math.max(0, (now - at) / 1000);
}

/** How long ago, as text. */
export function ago(text) {
  const seconds = secondsSince(text);
  if (seconds === null) return absolute(text);
  return seconds < 5 ? 'just now' : `${duration(seconds, 1)} ago`;
}

/** An instant in the reader's time zone. */
export function absolute(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime())
    ? ''
    : at.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
}

/** A `time` element that says how long ago and is kept right while it is shown. */
export function timeAgo(text) {
  return h('time', { datetime: text, title: absolute(text), 'data-ago': true }, ago(text));
}

setInterval(() => {
  for (const element of document.querySelectorAll('time[data-ago]')) {
    const text = ago(element.getAttribute('datetime'));
    if (element.textContent !== text) element.textContent = text;
  }
}, REDRAW_MS);
