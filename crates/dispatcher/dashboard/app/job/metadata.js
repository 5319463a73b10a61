// What a job was made of, and how to make it again.

import { copy } from '../clipboard.js';
import { button, h } from '../dom.js';
import { factList } from '../facts.js';
import { bytes, count, duration, methodName, modelName, score } from '../format.js';
import { commandOf, lineOf } from '../lines.js';

export function metadata(job) {
  const facts = factList();
  facts.show(factsOf(job));
  return h(
    'section',
    { 'aria-labelledby': 'metadata' },
    h('div', { class: 'section-head' }, h('h2', { id: 'metadata' }, 'Metadata')),
    h(
      'div',
      { class: 'row' },
      button('Copy JSON line', () => copy('JSON line', JSON.stringify(lineOf(job))), { icon: 'copy' }),
      button('Copy command', () => copy('Command', commandOf(job)), { icon: 'copy' }),
      job.outputs.image &&
        h('a', { class: 'button', href: path(job, 'sidecar'), download: `${job.id}.json` }, 'Sidecar'),
      job.outputs.trace &&
        h('a', { class: 'button', href: path(job, 'trace'), download: `${job.id}.safetensors` }, 'Trace'),
    ),
    facts.element,
    job.tries.length > 1 && tries(job),
  );
}

function path(job, output) {
  return `/v1/batches/${job.id.slice(0, job.id.lastIndexOf('-'))}/jobs/${job.index}/${output}`;
}

function factsOf(job) {
  const { spec, success } = job;
  return [
    ['Id', h('code', {}, job.id)],
    ['Line', count(job.line)],
    job.custom_id && ['Custom id', job.custom_id],
    Object.keys(job.labels).length > 0 && [
      'Labels',
      Object.entries(job.labels).map(([k, v]) => h('span', { class: 'chip' }, `${k}: ${v}`)),
    ],
    spec.negative_prompt && ['Negative prompt', spec.negative_prompt],
    ['Subjects', spec.subjects.map((s) => s.word).join(', ') || 'none'],
    ['Seed', String(spec.seed)],
    ['Method', methodName(spec.method)],
    ['Steps', count(spec.steps)],
    ['Guidance scale', String(spec.guidance_scale)],
    ['Scheduler', spec.scheduler],
    ['Size', `${spec.width} × ${spec.height}`],
    ['Model', modelName(spec.model)],
    ['Engine', spec.engine],
    job.kind && ['Kind of machine', job.kind],
    job.worker && ['Worker', job.worker],
    success && ['Time', duration(success.seconds)],
    success && ['Loss', score(success.loss)],
    success && ['File', bytes(success.bytes)],
    success && ['SHA-256', h('code', {}, success.sha256)],
  ].filter(Boolean);
}

function tries(job) {
  return h(
    'table',
    { class: 'compact' },
    h('caption', {}, 'Seeds tried'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Seed'), h('th', { scope: 'col' }, 'Score'))),
    h(
      'tbody',
      {},
      job.tries.map((each) =>
        h(
          'tr',
          {},
          h('th', { scope: 'row' }, String(each.seed)),
          h('td', { class: 'number' }, score(each.score)),
        ),
      ),
    ),
  );
}
