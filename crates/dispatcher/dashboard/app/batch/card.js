// A job in the gallery: its image, or its state while there is none.

import { h } from '../dom.js';
import { leastScore, score, words } from '../format.js';
import { stateTag } from '../states.js';

/**
 * @param {string} batch its id
 * @param {any} job
 */
export function jobCard(batch, job) {
  const least = leastScore(job.success?.scores);
  return h(
    'li',
    { class: 'shot', 'data-index': job.index },
    h(
      'a',
      { href: `/batches/${batch}/jobs/${job.index}`, tabindex: '-1', title: job.prompt },
      job.success ? thumbnail(batch, job) : placeholder(job),
    ),
    h(
      'label',
      { class: 'pick' },
      h('input', { type: 'checkbox', tabindex: '-1', 'aria-label': `Select job ${job.index}` }),
    ),
    h(
      'div',
      { class: 'shot-text' },
      h('span', { class: 'quiet' }, `#${job.index}`),
      job.method === 'none' && h('span', { class: 'plain-mark' }, 'plain'),
      least !== null &&
        h(
          'span',
          { class: 'shot-score', title: `Weakest subject: ${job.success.weakest ?? 'unknown'}` },
          h('span', { class: 'hidden-text' }, 'weakest subject: '),
          h('span', { class: 'weakest' }, job.success.weakest),
          ' ',
          h('strong', {}, score(least)),
        ),
    ),
    least !== null && h('span', { class: 'meter', style: { '--share': String(least) } }),
  );
}

function thumbnail(batch, job) {
  const kind = job.method === 'none' ? ', plain SD' : '';
  return h('img', {
    src: `/v1/batches/${batch}/jobs/${job.index}/thumbnail`,
    alt: `${job.prompt}, seed ${job.seed}${kind}`,
    loading: 'lazy',
    decoding: 'async',
    width: '256',
    height: '256',
  });
}

function placeholder(job) {
  return h(
    'span',
    { class: 'no-image' },
    h('span', { class: 'hidden-text' }, `Job ${job.index}: `),
    stateTag(job.state),
    job.dead && h('span', { class: 'quiet' }, words(job.failure?.code ?? job.dead)),
    h('span', { class: 'no-image-prompt' }, job.prompt),
  );
}
