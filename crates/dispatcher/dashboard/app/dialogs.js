// Dialogs that ask before something is done. While the work runs the dialog stays; if it fails, the dialog
// says why and what was typed is kept.

import { button, fill, freshId, h } from './dom.js';
import { problemBox } from './problem.js';

/**
 * Asks, and does the work when it is confirmed.
 *
 * @param {{title: string, content: any, confirm: string, danger?: boolean, work: (data: FormData) => any}} ask
 * @returns {Promise<boolean>} whether it was done
 */
export function ask({ title, content, confirm, danger = false, work }) {
  const id = freshId('dialog');
  const trouble = h('div');
  const sure = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, confirm);
  const dialog = h('dialog', { 'aria-labelledby': id });
  const form = h(
    'form',
    { method: 'dialog' },
    h('h2', { id }, title),
    content,
    trouble,
    h(
      'div',
      { class: 'row end' },
      button(danger ? 'Keep it' : 'Close', () => dialog.close()),
      sure,
    ),
  );
  dialog.append(form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let done = false;
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (sure.disabled) return;
      sure.disabled = true;
      fill(trouble);
      try {
        await work(new FormData(form));
        done = true;
        dialog.close();
      } catch (problem) {
        fill(trouble, problemBox(problem));
      }
      sure.disabled = false;
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(done);
    });
    dialog.showModal();
  });
}

/** Shows a text to copy, where the page may not use the clipboard: without TLS it may not. */
export function showText(title, text) {
  const id = freshId('dialog');
  const area = h('textarea', { readonly: true, rows: '6', 'aria-labelledby': id });
  area.value = text;
  const dialog = h(
    'dialog',
    { 'aria-labelledby': id, on: { close: () => dialog.remove() } },
    h('h2', { id }, title),
    area,
    h(
      'div',
      { class: 'row end' },
      button('Close', () => dialog.close()),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  area.select();
}
