// Requests to the server. Every fault becomes a `Problem` with what happened and what helps.
// Not here: streams (`stream.js`), showing problems (`problem.js`).

import { learnFromHeader } from './clock.js';
import { answered, isGatewayFault, unanswered } from './connection.js';

/** An answer that is not the one that was hoped for. */
export class Problem extends Error {
  constructor(status, body, retryAfter = null) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? 'unknown';
    this.title = body.title ?? 'The request failed';
    this.remedy = body.remedy ?? '';
    /** @type {{line: number, field: string, code: string, message: string, remedy: string}[]} */
    this.errors = body.errors ?? [];
    this.refused = body.refused ?? this.errors.length;
    /** Seconds after which the same may be tried again. */
    this.retryAfter = retryAfter;
  }
}

/** Tells `unauthorized` when an answer says that nobody is signed in. */
export const authority = new EventTarget();

/**
 * @param {string} method
 * @param {string} path
 * @param {{query?: Record<string, any>, json?: any, body?: BodyInit, headers?: Record<string, string>,
 *   signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the JSON of the answer; null if it has none
 */
export async function request(method, path, options = {}) {
  const headers = { Accept: 'application/json', ...options.headers };
  let body = options.body;
  if (options.json !== undefined) {
    headers['Content-Type'] = 'application/json';
    body = JSON.stringify(options.json);
  }
  // Without it the server takes no change: another site's page cannot send it.
  if (method !== 'GET') headers['X-Excite'] = 'dashboard';
  let response;
  try {
    response = await fetch(withQuery(path, options.query), { method, headers, body, signal: options.signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    unanswered();
    throw unreachable();
  }
  if (isGatewayFault(response)) {
    unanswered();
    throw unreachable();
  }
  answered();
  learnFromHeader(response.headers.get('date'));
  if (!response.ok) throw await problemOf(response);
  return response.headers.get('content-type')?.includes('json') ? response.json() : null;
}

export const get = (path, options) => request('GET', path, options);
export const post = (path, options) => request('POST', path, options);
export const patch = (path, options) => request('PATCH', path, options);
export const remove = (path, options) => request('DELETE', path, options);

/** A path with those parts of a query that say something. */
export function withQuery(path, query = {}) {
  const kept = Object.entries(query).filter(([, v]) => v !== null && v !== undefined && v !== '');
  const text = new URLSearchParams(kept.map(([k, v]) => [k, String(v)])).toString();
  return text ? `${path}?${text}` : path;
}

/** The problem that an answer tells of. */
export async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get('retry-after')) || null;
  if (response.status === 401) authority.dispatchEvent(new Event('unauthorized'));
  return new Problem(response.status, body, retryAfter);
}

function unreachable() {
  return new Problem(0, {
    code: 'unreachable',
    title: 'The server cannot be reached',
    detail: 'No answer came.',
    remedy: 'The page tries again by itself; look whether the dispatcher runs.',
  });
}

/** A key that makes one batch however often a form is sent. */
export function idempotencyKey() {
  // Not `randomUUID`: pages without TLS have none.
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `dashboard-${Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
