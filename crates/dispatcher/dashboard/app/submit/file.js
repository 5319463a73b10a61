// A file of lines, chosen or dropped, or the lines themselves. Small files are shown to be edited.

import { button, field, fill, h, select } from '../dom.js';
import { bytes } from '../format.js';
import { icon } from '../icons.js';

/** Larger files are sent as they are: no text area takes them. */
const EDITABLE_BYTES = 256 * 1024;

/** @type {[string, string, string[]][]} media type, name, endings */
const TYPES = [
  ['application/x-ndjson', 'JSON lines', ['jsonl', 'ndjson']],
  ['text/csv', 'CSV', ['csv']],
  ['text/plain', 'one prompt a line', ['txt']],
  ['application/json', 'matrix', ['json']],
];

/**
 * @param {string} lines what is there already
 * @returns {import('./page.js').Source}
 */
export function fileSource(lines) {
  /** @type {File | null} */
  let large = null;
  const area = h('textarea', {
    name: 'lines',
    rows: '8',
    class: 'code',
    spellcheck: 'false',
    placeholder: '{"prompt": "a cat and a frog", "seeds": "0..4"}',
  });
  area.value = lines;
  const type = select(
    { name: 'type' },
    TYPES.map(([value, text]) => [value, text]),
  );
  const picker = h('input', {
    type: 'file',
    id: 'file',
    accept: TYPES.flatMap(([, , ends]) => ends.map((e) => `.${e}`)).join(','),
  });
  const chosen = h('div', { role: 'status' });
  const text = field('Lines', area);
  const drop = h(
    'div',
    { class: 'drop' },
    icon('upload'),
    h('label', { for: 'file' }, 'Choose a file, or drop one here'),
    picker,
  );

  async function take(file) {
    if (!file) return;
    const end = file.name.split('.').at(-1).toLowerCase();
    const known = TYPES.find(([, , ends]) => ends.includes(end));
    if (known) type.value = known[0];
    large = file.size > EDITABLE_BYTES ? file : null;
    area.value = large ? '' : await file.text();
    text.hidden = Boolean(large);
    fill(
      chosen,
      h(
        'p',
        { class: 'note' },
        h('strong', {}, file.name),
        ` ${bytes(file.size)}`,
        large && button('Put away', putAway, { kind: 'quiet' }),
      ),
    );
    area.dispatchEvent(new Event('input', { bubbles: true }));
  }

  function putAway() {
    large = null;
    picker.value = '';
    text.hidden = false;
    fill(chosen);
    area.dispatchEvent(new Event('input', { bubbles: true }));
  }

  picker.addEventListener('change', () => take(picker.files[0]));
  for (const name of ['dragenter', 'dragover']) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
  }
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    take(event.dataTransfer.files[0]);
  });

  return {
    element: h(
      'section',
      { class: 'card', 'aria-label': 'File or lines' },
      drop,
      chosen,
      field('Format', type),
      text,
    ),
    content() {
      if (!large && !area.value.trim()) {
        area.focus();
        throw new Error('There is no line yet: choose a file, or write lines.');
      }
      return { type: type.value, body: large ?? area.value };
    },
    promptOf: (line) => (large ? undefined : area.value.split('\n')[line - 1]?.slice(0, 120)),
  };
}
