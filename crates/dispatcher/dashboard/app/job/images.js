// The image of a job beside the plain one of the same seed.

import { h } from '../dom.js';
import { leastScore, methodName, score } from '../format.js';

/**
 * @param {string} batch its id
 * @param {any} job
 * @param {any} other the job it is compared with, or null
 */
export function images(batch, job, other) {
  // Plain first, as one reads from before to after.
  const both = other
    ? [job, other].sort((a, b) => Number(b.method === 'none') - Number(a.method === 'none'))
    : [job];
  return h(
    'section',
    { class: 'images', 'aria-label': 'Images' },
    both.map((each) => image(batch, each, each === job)),
  );
}

function image(batch, job, own) {
  const name = methodName(job.method);
  const source = `/v1/batches/${batch}/jobs/${job.index}/image`;
  return h(
    'figure',
    { class: own ? 'own' : null },
    job.outputs.image
      ? h(
          'a',
          { href: source, target: '_blank' },
          h('img', {
            src: source,
            alt: `${job.spec.prompt}, ${name}, seed ${job.spec.seed}`,
            width: job.spec.width,
            height: job.spec.height,
          }),
        )
      : h('div', { class: 'no-image' }, `${job.state}: no image`),
    h(
      'figcaption',
      {},
      h('strong', {}, name),
      own ? ' (this job)' : h('a', { href: `/batches/${batch}/jobs/${job.index}` }, `job ${job.index}`),
      scores(job),
    ),
  );
}

function scores(job) {
  const { subjects } = job.spec;
  const found = job.success?.scores ?? [];
  if (!subjects.length || leastScore(found) === null) return null;
  return h(
    'ul',
    { class: 'scores', 'aria-label': 'Scores' },
    subjects.map((subject, n) =>
      h(
        'li',
        { class: subject.word === job.success.weakest ? 'weakest' : null },
        h(
          'span',
          {},
          subject.word,
          subject.word === job.success.weakest && h('span', { class: 'quiet' }, ' weakest'),
        ),
        h('span', { class: 'meter', style: { '--share': String(found[n] ?? 0) } }),
        h('strong', {}, score(found[n])),
      ),
    ),
  );
}
