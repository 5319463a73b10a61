// Who is signed in and what they may do.

import { get, post, remove } from './api.js';

/** @type {{name: string | null, scopes: string[], tokens: boolean, version: string} | null} */
let current = null;

/** Asks the server who is signed in. */
export async function loadSession() {
  current = await get('/v1/session');
  return current;
}

export async function signIn(token) {
  current = await post('/v1/session', { json: { token } });
  return current;
}

export async function signOut() {
  await remove('/v1/session');
  current = null;
}

export function session() {
  return current;
}

/** Whether the session has a scope: what it lacks is not offered. */
export function may(scope) {
  return current?.scopes.includes(scope) ?? false;
}
