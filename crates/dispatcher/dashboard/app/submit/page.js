// The form for a new batch: prompts, a file or a matrix; options; a check by the server; then the batch.
//
// Only what was checked can be submitted. Each content that was checked has a key of its own, so a second
// click, or a second try after a lost connection, makes no second batch.

import { idempotencyKey, post } from '../api.js';
import { button, fill, h } from '../dom.js';
import { counted, shortId } from '../format.js';
import { announce, tell } from '../notices.js';
import { problemBox } from '../problem.js';
import { go } from '../router.js';
import { may } from '../session.js';
import { checkResult } from './check.js';
import { dropDraft, keptDraft } from './draft.js';
import { fileSource } from './file.js';
import { matrixSource } from './matrix.js';
import { optionsForm } from './options.js';
import { promptsSource } from './prompts.js';

/**
 * @typedef {object} Source where the lines come from
 * @property {HTMLElement} element
 * @property {(defaults: any) => {type: string, body: BodyInit, ownDefaults?: boolean}} content throws an `Error`
 *   with what is missing; `ownDefaults` says that the defaults are part of the body
 * @property {(line: number) => string | undefined} [promptOf] the line with a number, to show beside what is said of it
 */

/** @param {import('../router.js').Page} page */
export async function submitView(page) {
  page.head('Submit a batch');
  if (!may('submit')) {
    fill(page.body, h('p', {}, 'Your token may look only: ask for one that may submit.'));
    return;
  }
  const draft = keptDraft();
  const sources = {
    prompts: promptsSource(page.signal),
    file: fileSource(draft?.lines ?? ''),
    matrix: matrixSource(),
  };
  let source = draft ? sources.file : sources.prompts;
  const options = await optionsForm(page.signal);
  const result = h('div', { class: 'stack', 'aria-live': 'polite' });
  const check = h('button', { type: 'submit', class: 'primary' }, 'Check');
  /** What was checked, ready to be sent; null once something has been changed. */
  let checked = null;

  const form = h(
    'form',
    { class: 'submit-form', novalidate: true },
    draft && child(draft),
    chooser(draft ? 'file' : 'prompts', (name) => {
      source = sources[name];
      for (const each of Object.values(sources)) each.element.hidden = each !== source;
      changed();
    }),
    Object.values(sources).map((each) => each.element),
    options.element,
    h(
      'div',
      { class: 'row' },
      check,
      h('span', { class: 'quiet' }, 'Checks every line, counts and estimates; submits nothing.'),
    ),
    result,
  );
  for (const each of Object.values(sources)) each.element.hidden = each !== source;

  function changed() {
    if (!checked && !result.firstChild) return;
    checked = null;
    fill(result, h('p', { class: 'quiet' }, 'Changed since it was checked.'));
  }

  function request() {
    const defaults = options.defaults();
    const { type, body, ownDefaults } = source.content(defaults);
    const kept = !ownDefaults && Object.keys(defaults).length > 0;
    const query = {
      ...options.query(),
      parent: draft?.parent,
      defaults: kept ? JSON.stringify(defaults) : null,
    };
    return { query, body, headers: { 'Content-Type': type } };
  }

  form.addEventListener('input', changed);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (check.disabled) return;
    const wrong = options.element.querySelector(':invalid');
    if (wrong) {
      const folded = wrong.closest('details');
      if (folded) folded.open = true;
      form.reportValidity();
      return;
    }
    let asked;
    try {
      asked = request();
    } catch (fault) {
      // What is missing was found here: no request was made.
      fill(result, h('p', { class: 'warning', role: 'alert' }, fault.message));
      return;
    }
    checked = null;
    check.disabled = true;
    fill(result, h('p', { class: 'quiet' }, 'Checking…'));
    try {
      const found = await post('/v1/batches', {
        ...asked,
        query: { ...asked.query, dry_run: true },
        signal: page.signal,
      });
      checked = { ...asked, headers: { ...asked.headers, 'Idempotency-Key': idempotencyKey() } };
      fill(result, checkResult(found, source.promptOf), submitRow(found));
      result.scrollIntoView({ block: 'nearest' });
    } catch (problem) {
      if (!page.signal.aborted) fill(result, problemBox(problem));
    }
    check.disabled = false;
  });

  function submitRow(found) {
    const trouble = h('div');
    const send = button(`Submit ${counted(found.jobs, 'job')}`, submit, {
      kind: 'primary',
      disabled: found.jobs === 0,
    });
    async function submit() {
      if (!checked || send.disabled) return;
      send.disabled = true;
      fill(trouble);
      announce('Submitting');
      try {
        const batch = await post('/v1/batches', checked);
        dropDraft();
        tell(`Submitted: ${counted(batch.jobs, 'job')}.`);
        go(`/batches/${batch.id}`);
      } catch (problem) {
        fill(trouble, problemBox(problem));
        send.disabled = false;
      }
    }
    return [trouble, h('div', { class: 'row' }, send)];
  }

  fill(page.body, form);
}

function child(draft) {
  const drop = button(
    'Begin anew',
    () => {
      dropDraft();
      go('/submit', { replace: true });
    },
    { kind: 'quiet' },
  );
  return h(
    'p',
    { class: 'note' },
    h(
      'span',
      {},
      'A child of batch ',
      h('a', { href: `/batches/${draft.parent}` }, shortId(draft.parent)),
      ': its jobs’ lines are below, to be edited.',
    ),
    drop,
  );
}

function chooser(first, choose) {
  const choices = [
    ['prompts', 'Prompts'],
    ['file', 'File or lines'],
    ['matrix', 'Matrix'],
  ];
  return h(
    'fieldset',
    { class: 'choices' },
    h('legend', { class: 'hidden-text' }, 'What to make'),
    choices.map(([value, text]) =>
      h(
        'label',
        {},
        h('input', {
          type: 'radio',
          name: 'source',
          value,
          checked: value === first,
          on: { change: () => choose(value) },
        }),
        h('span', {}, text),
      ),
    ),
  );
}
