// States of jobs and batches: their order, and how they are shown.

import { fill, h } from './dom.js';
import { count } from './format.js';

/** As a batch goes on, from the left. */
export const JOB_STATES = ['succeeded', 'running', 'retrying', 'queued', 'waiting', 'dead', 'cancelled'];

export const BATCH_STATES = ['active', 'paused', 'finished', 'cancelled'];

/** A state as a mark with its name. */
export function stateTag(state) {
  return h('span', { class: `tag state-${state}` }, state);
}

/** How many jobs of a batch are in a state. */
export function inState(batch, state) {
  return batch.tally?.states[state] ?? 0;
}

/** How many jobs have come to their end. */
export function concluded(batch) {
  return ['succeeded', 'dead', 'cancelled'].reduce((n, state) => n + inState(batch, state), 0);
}

/** The share of jobs that have come to their end, as text. A batch with open jobs is never at 100 %. */
export function percent(batch) {
  if (!batch.tally) return '–';
  const share = batch.jobs ? concluded(batch) / batch.jobs : 1;
  return `${Math.floor(share * 100)} %`;
}

/** A bar that is stacked of the states. */
export function stateBar(batch) {
  const bar = h('div', { class: 'bar', role: 'img' });
  showStateBar(bar, batch);
  return bar;
}

/** Shows the newest tally in a bar. */
export function showStateBar(bar, batch) {
  const some = JOB_STATES.filter((state) => inState(batch, state) > 0);
  const said = some.map((state) => `${count(inState(batch, state))} ${state}`).join(', ');
  bar.setAttribute(
    'aria-label',
    batch.tally ? `Of ${count(batch.jobs)} jobs: ${said}` : 'Progress is not known',
  );
  fill(
    bar,
    some.map((state) =>
      h('span', { class: `part state-${state}`, style: { 'flex-grow': String(inState(batch, state)) } }),
    ),
  );
}

/** The states with their counts, as a list. */
export function stateLegend(batch) {
  return JOB_STATES.filter((state) => inState(batch, state) > 0).map((state) =>
    h(
      'li',
      {},
      h('span', { class: `swatch state-${state}` }),
      `${state} `,
      h('strong', {}, count(inState(batch, state))),
    ),
  );
}
