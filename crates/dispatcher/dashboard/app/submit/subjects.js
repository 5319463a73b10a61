// The subjects of prompts: each prompt is shown word by word, and subjects are the words that are marked.
// A click on a marked word removes it, on another word marks it.

import { post } from '../api.js';
import { button, fill, h, prose } from '../dom.js';
import { count } from '../format.js';
import { icon } from '../icons.js';

/** Prompts whose subjects are shown; for more the form would be mostly this. */
const SHOWN = 12;
const DEBOUNCE_MS = 400;

/** @param {AbortSignal} signal */
export function subjectsEditor(signal) {
  /** By prompt: what the server finds, and what the reader made of it. */
  const found = new Map();
  const chosen = new Map();
  const list = h('ul', { class: 'prompts' });
  const more = h('p', { class: 'quiet' });
  const element = h(
    'div',
    { class: 'subjects', hidden: true },
    h('h2', {}, 'Subjects'),
    h(
      'p',
      { class: 'hint' },
      'Marked words must appear in the image. Press a marked word to remove it, another word to mark it.',
    ),
    list,
    more,
  );
  let prompts = [];
  let timer = 0;
  let asking = false;

  function show(fresh) {
    prompts = [...new Set(fresh)];
    // What could not be found out is asked again.
    for (const [prompt, answer] of found) if (answer.problem) found.delete(prompt);
    clearTimeout(timer);
    timer = setTimeout(update, DEBOUNCE_MS);
  }

  async function update() {
    if (asking) return;
    asking = true;
    for (let prompt = missing(); prompt !== undefined && !signal.aborted; prompt = missing()) {
      try {
        found.set(prompt, await post('/v1/subjects', { json: { prompt }, signal }));
      } catch (problem) {
        found.set(prompt, { problem });
      }
      draw();
    }
    asking = false;
    draw();
  }

  function missing() {
    return prompts.slice(0, SHOWN).find((prompt) => !found.has(prompt));
  }

  function draw() {
    element.hidden = prompts.length === 0;
    const focused = focusedWord(list);
    fill(
      list,
      prompts.slice(0, SHOWN).map((prompt) => row(prompt)),
    );
    if (focused) list.querySelector(`[data-key="${focused}"]`)?.focus();
    more.textContent =
      prompts.length > SHOWN
        ? `and ${count(prompts.length - SHOWN)} more: their subjects are found as they are submitted`
        : '';
  }

  function row(prompt) {
    const answer = found.get(prompt);
    if (!answer) return h('li', { class: 'quiet' }, prompt);
    if (answer.problem)
      return h('li', {}, prompt, ' ', h('span', { class: 'warning' }, answer.problem.message));
    const subjects = chosen.get(prompt) ?? answer.subjects;
    const corrected = chosen.has(prompt);
    return h(
      'li',
      {},
      h('div', { class: 'sentence' }, pieces(prompt, answer.words, subjects)),
      answer.unsure && !corrected && h('span', { class: 'tag unsure' }, 'unsure'),
      corrected && h('span', { class: 'tag' }, 'yours'),
      corrected &&
        button(
          'As found',
          () => {
            chosen.delete(prompt);
            changed();
          },
          { kind: 'quiet' },
        ),
      !corrected && answer.warnings.map((w) => h('p', { class: 'quiet' }, prose(w.message))),
    );
  }

  /** The prompt as texts between words, and a toggle for each word or subject of several words. */
  function pieces(prompt, words, subjects) {
    const result = [];
    let at = 0;
    for (let n = 0; n < words.length; n += 1) {
      const subject = subjects.find((s) => s.indices.some((index) => words[n].indices.includes(index)));
      const first = n;
      while (subject && words[n + 1]?.indices.some((index) => subject.indices.includes(index))) n += 1;
      result.push(prompt.slice(at, words[first].start));
      at = words[n].end;
      result.push(toggle(prompt, prompt.slice(words[first].start, at), words[first], subject, subjects));
    }
    return [...result, prompt.slice(at)];
  }

  function toggle(prompt, text, word, subject, subjects) {
    // Cut off behind the last token, so the model never sees it.
    if (word.indices.length === 0) return h('span', { class: 'quiet' }, text);
    const press = () => {
      const rest = subjects.filter((s) => s !== subject);
      const indices = word.indices;
      const fresh = subject
        ? rest
        : [...rest, { word: word.word, indices }].sort((a, b) => a.indices[0] - b.indices[0]);
      chosen.set(prompt, fresh);
      changed();
    };
    return h(
      'button',
      {
        type: 'button',
        class: subject ? 'word subject' : 'word',
        'aria-pressed': String(Boolean(subject)),
        'data-key': `${prompts.indexOf(prompt)}-${word.start}`,
        on: { click: press },
      },
      text,
      subject && icon('cross'),
    );
  }

  function changed() {
    draw();
    // As if it were typed: the form then knows that it is another one.
    element.dispatchEvent(new Event('input', { bubbles: true }));
  }

  return {
    element,
    show,
    /** The subjects of a prompt, if the reader corrected them. */
    corrected: (prompt) => (chosen.has(prompt) ? { subjects: chosen.get(prompt) } : {}),
  };
}

function focusedWord(list) {
  return list.contains(document.activeElement)
    ? /** @type {HTMLElement} */ (document.activeElement).dataset.key
    : undefined;
}
