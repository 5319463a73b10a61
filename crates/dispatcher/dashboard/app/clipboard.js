// Copying texts.

import { showText } from './dialogs.js';
import { tell } from './notices.js';

/** Copies a text, or shows it to be copied by hand. */
export async function copy(what, text) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} copied.`);
  } catch {
    showText(what, text);
  }
}
