// Prompts, one a line, with the subjects that were found in each.

import { field, h } from '../dom.js';
import { subjectsEditor } from './subjects.js';

/**
 * @param {AbortSignal} signal
 * @returns {import('./page.js').Source}
 */
export function promptsSource(signal) {
  const area = h('textarea', {
    name: 'prompts',
    rows: '6',
    spellcheck: 'true',
    placeholder: 'a cat and a frog\na bear with a balloon',
  });
  const editor = subjectsEditor(signal);
  const prompts = () =>
    area.value
      .split('\n')
      .map((line) => line.trim())
      .filter(Boolean);
  area.addEventListener('input', () => editor.show(prompts()));
  return {
    element: h(
      'section',
      { class: 'card', 'aria-label': 'Prompts' },
      field('Prompts', area, 'One a line.'),
      editor.element,
    ),
    content() {
      const lines = prompts();
      if (lines.length === 0) {
        area.focus();
        throw new Error('There is no prompt yet: write one, one a line.');
      }
      const body = lines.map((prompt) => JSON.stringify({ prompt, ...editor.corrected(prompt) })).join('\n');
      return { type: 'application/x-ndjson', body };
    },
    promptOf: (line) => prompts()[line - 1],
  };
}
