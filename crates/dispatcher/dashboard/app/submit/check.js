// What the server found when it checked a batch.

import { h, prose } from '../dom.js';
import { figureList } from '../facts.js';
import { count, counted, duration, modelName, money, words } from '../format.js';
import { icon } from '../icons.js';

/**
 * @param {any} found
 * @param {((line: number) => string | undefined) | undefined} promptOf
 */
export function checkResult(found, promptOf) {
  const warnings = Object.entries(found.warnings);
  const figures = figureList();
  figures.show([
    ['Images', count(found.jobs), `of ${counted(found.lines, 'line')}`],
    ['GPU time', duration(found.gpu_seconds)],
    ['Until all is made', duration(found.drain_seconds), 'with what waits already'],
    ['Price', money(found.price, found.currency), 'an estimate'],
  ]);
  return h(
    'section',
    { class: 'card', 'aria-labelledby': 'checked' },
    h('h2', { id: 'checked' }, icon('check'), ' Checked'),
    figures.element,
    h('p', { class: 'quiet' }, `With the model ${modelName(found.model)}.`),
    warnings.length > 0 && h('h3', {}, 'Warnings'),
    warnings.length > 0 &&
      h('p', {}, warnings.map(([code, lines]) => `${words(code)}: ${counted(lines, 'line')}`).join(', ')),
    found.examples.length > 0 &&
      h(
        'ul',
        { class: 'warnings' },
        found.examples.map((example) => warning(example, promptOf)),
      ),
  );
}

function warning(example, promptOf) {
  const prompt = promptOf?.(example.line);
  return h(
    'li',
    { class: 'warning' },
    icon('warning'),
    h(
      'span',
      {},
      h('strong', {}, `Line ${count(example.line)}: `),
      prose(example.message),
      prompt && h('span', { class: 'quiet' }, ` “${prompt}”`),
    ),
  );
}
