// A matrix: values for some fields, and an image for each combination, or for each row of them.

import { button, field, fill, h, select } from '../dom.js';
import { counted } from '../format.js';

const NUMBERS = ['seed', 'steps', 'guidance_scale', 'width', 'height'];
const TEXTS = ['prompt', 'method', 'scheduler', 'negative_prompt', 'custom_id'];

/** @returns {import('./page.js').Source} */
export function matrixSource() {
  const mode = select({ name: 'mode' }, [
    ['product', 'every combination'],
    ['zip', 'row by row'],
  ]);
  const list = h('div', { class: 'axes' });
  const said = h('p', { class: 'quiet', role: 'status' });
  /** @type {{name: HTMLSelectElement, values: HTMLTextAreaElement, element: HTMLElement}[]} */
  let axes = [];

  function add(name, focus) {
    const axis = {
      name: select(
        {},
        [...TEXTS, ...NUMBERS].map((f) => [f, f]),
        name,
      ),
      values: h('textarea', { rows: '3', spellcheck: 'false' }),
      element: h('div'),
    };
    const drop = button(
      'Remove',
      () => {
        axes = axes.filter((each) => each !== axis);
        axis.element.remove();
        list.dispatchEvent(new Event('input', { bubbles: true }));
      },
      { icon: 'cross', kind: 'quiet' },
    );
    fill(
      axis.element,
      h(
        'fieldset',
        { class: 'axis' },
        h('legend', {}, 'Axis'),
        field('Field', axis.name),
        field('Values', axis.values, 'One a line; for seeds also 0..8.'),
        drop,
      ),
    );
    axes.push(axis);
    list.append(axis.element);
    if (focus) axis.name.focus();
  }

  function tell() {
    const lengths = axes.map((axis) => lengthOf(valuesOf(axis)));
    if (lengths.length === 0) {
      said.textContent = '';
    } else if (mode.value === 'product') {
      const jobs = lengths.reduce((a, b) => a * b, 1);
      said.textContent = `${lengths.join(' × ')}: ${counted(jobs, 'image')} before comparison.`;
    } else if (new Set(lengths).size > 1) {
      said.textContent = `Row by row, all axes need as many values: they have ${lengths.join(', ')}.`;
    } else {
      said.textContent = `${counted(lengths[0], 'image')} before comparison.`;
    }
  }

  const element = h(
    'section',
    { class: 'card', 'aria-label': 'Matrix' },
    field('Combine', mode),
    list,
    h(
      'div',
      { class: 'row' },
      button(
        'Add an axis',
        () => {
          add('guidance_scale', true);
          tell();
        },
        { icon: 'plus' },
      ),
      said,
    ),
  );
  add('prompt', false);
  add('seed', false);
  axes[1].values.value = '0..4';
  element.addEventListener('input', tell);
  tell();

  return {
    element,
    content(defaults) {
      const names = axes.map((axis) => axis.name.value);
      const twice = names.find((name, n) => names.indexOf(name) !== n);
      if (twice) throw new Error(`The matrix has two axes for ${twice}: remove one.`);
      const empty = axes.find((axis) => lengthOf(valuesOf(axis)) === 0);
      if (empty || axes.length === 0) {
        empty?.values.focus();
        throw new Error(
          empty ? `The axis ${empty.name.value} has no value yet.` : 'The matrix has no axis yet.',
        );
      }
      const { seeds, ...rest } = defaults;
      // An axis of seeds takes the place of the seeds that all lines have.
      const kept = names.includes('seed') || seeds === undefined ? rest : defaults;
      const matrix = {
        mode: mode.value,
        axes: Object.fromEntries(axes.map((axis) => [axis.name.value, valuesOf(axis)])),
        defaults: kept,
      };
      return { type: 'application/json', body: JSON.stringify(matrix), ownDefaults: true };
    },
  };
}

/** A list of values, or a range of seeds as it was written. */
function valuesOf(axis) {
  const lines = axis.values.value
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);
  const name = axis.name.value;
  if (name === 'seed' && lines.length === 1 && lines[0].includes('..')) return lines[0];
  if (!NUMBERS.includes(name)) return lines;
  return lines
    .flatMap((line) => line.split(','))
    .map((text) => (Number.isNaN(Number(text)) ? text : Number(text)));
}

function lengthOf(values) {
  if (Array.isArray(values)) return values.length;
  const [, from, closed, to] = /^(\d+)\.\.(=?)(\d+)$/.exec(values) ?? [];
  return from === undefined ? 1 : Math.max(0, Number(to) - Number(from) + (closed ? 1 : 0));
}
