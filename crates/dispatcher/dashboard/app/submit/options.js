// The options that all lines of a batch share: what a line leaves out comes from here.

import { get } from '../api.js';
import { checkbox, field, h, select } from '../dom.js';

const SCHEDULERS = [
  'pndm',
  'ddim',
  'euler',
  'euler_karras',
  'euler_ancestral',
  'dpmpp_2m',
  'dpmpp_2m_karras',
];

/** @param {AbortSignal} signal */
export async function optionsForm(signal) {
  // Without the list the default model can still be used.
  const { models } = await get('/v1/models', { signal }).catch(() => ({ models: [] }));
  const input = (name, attributes = {}) => h('input', { name, autocomplete: 'off', ...attributes });
  const number = (name, attributes) => input(name, { type: 'number', ...attributes });
  const size = { min: '8', max: '2048', step: '8', placeholder: 'the model’s' };

  const element = h(
    'section',
    { class: 'card', 'aria-labelledby': 'options' },
    h('h2', { id: 'options' }, 'Options'),
    h(
      'div',
      { class: 'grid' },
      field('Name', input('name', { maxlength: '128' })),
      field(
        'Model',
        select({ name: 'model' }, [['', 'the default'], ...models.map((m) => [m.name, m.name])]),
      ),
      field(
        'Seeds',
        input('seeds', { placeholder: '0' }),
        '0..4 are 0 to 3; 1,5,9 are these. One image each.',
      ),
      field(
        'Method',
        select({ name: 'method' }, [
          ['', 'Attend-and-Excite'],
          ['none', 'plain SD'],
          ['composable', 'Composable Diffusion'],
          ['structure', 'StructureDiffusion'],
          ['syngen', 'SynGen'],
        ]),
      ),
      field('Steps', number('steps', { min: '1', max: '1000', placeholder: '50' })),
      field(
        'Guidance scale',
        number('guidance_scale', { min: '1', max: '100', step: 'any', placeholder: '7.5' }),
      ),
    ),
    checkbox(
      'Compare with plain SD',
      { name: 'compare' },
      'Every image also plain, from the same seed: twice the jobs.',
    ),
    checkbox('Attention pictures', { name: 'attention' }, 'Where the model looked for each subject.'),
    h(
      'details',
      {},
      h('summary', {}, 'More options'),
      h(
        'div',
        { class: 'grid' },
        field('Negative prompt', input('negative_prompt')),
        field(
          'Scheduler',
          select({ name: 'scheduler' }, [['', 'the model’s'], ...SCHEDULERS.map((s) => [s, s])]),
        ),
        field('Width', number('width', size)),
        field('Height', number('height', size)),
        field(
          'Accept from score',
          number('min_score', { min: '0', max: '1', step: '0.01' }),
          'Below it, further seeds are tried; the best is kept.',
        ),
        field('Seeds to try at most', number('max_seeds', { min: '1', max: '16', placeholder: '4' })),
        field(
          'Lane',
          select({ name: 'lane' }, [
            ['', 'by the number of jobs'],
            ['express', 'express'],
            ['bulk', 'bulk'],
          ]),
        ),
        field(
          'Weight',
          number('weight', { min: '1', max: '100', placeholder: '1' }),
          'Its share beside other batches.',
        ),
      ),
      checkbox('Traces', { name: 'trace' }, 'Latents, losses and maps of every step, as safetensors.'),
    ),
  );

  const value = (name) => element.querySelector(`[name="${name}"]`).value.trim();
  const isOn = (name) => element.querySelector(`[name="${name}"]`).checked || null;
  const numberOf = (name) => (value(name) === '' ? undefined : Number(value(name)));

  return {
    element,
    /** What lines leave out. */
    defaults() {
      const minScore = numberOf('min_score');
      const line = {
        seeds: value('seeds') || undefined,
        steps: numberOf('steps'),
        guidance_scale: numberOf('guidance_scale'),
        method: value('method') || undefined,
        negative_prompt: value('negative_prompt') || undefined,
        scheduler: value('scheduler') || undefined,
        width: numberOf('width'),
        height: numberOf('height'),
        accept:
          minScore === undefined ? undefined : { min_score: minScore, max_seeds: numberOf('max_seeds') },
      };
      return JSON.parse(JSON.stringify(line));
    },
    /** What the batch is asked for with. */
    query() {
      const flags = Object.fromEntries(['compare', 'attention', 'trace'].map((name) => [name, isOn(name)]));
      return {
        name: value('name'),
        model: value('model'),
        lane: value('lane'),
        weight: value('weight'),
        ...flags,
      };
    },
  };
}
