// Jobs as lines again: what one would write to have the same job made.

import { get } from './api.js';

/** Requests at a time. */
const AT_ONCE = 4;

/** The line of a job, from its spec. */
export function lineOf(job) {
  const { spec } = job;
  const line = {
    prompt: spec.prompt,
    negative_prompt: spec.negative_prompt || undefined,
    subjects: spec.subjects.length ? spec.subjects : undefined,
    seed: spec.seed,
    steps: spec.steps,
    guidance_scale: spec.guidance_scale,
    width: spec.width,
    height: spec.height,
    scheduler: spec.scheduler,
    noise: spec.noise,
    method: spec.method,
    method_params: spec.method === 'none' ? undefined : spec.method_params,
    accept: job.accept ?? undefined,
    custom_id: job.custom_id ?? undefined,
    labels: Object.keys(job.labels).length ? job.labels : undefined,
  };
  return JSON.parse(JSON.stringify(line));
}

/** Several jobs of a batch with their specs, in the order asked for. */
export async function jobsOf(batch, indices) {
  const jobs = new Array(indices.length);
  let at = 0;
  const fetchSome = async () => {
    while (at < indices.length) {
      const place = at;
      at += 1;
      jobs[place] = await get(`/v1/batches/${batch}/jobs/${indices[place]}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, fetchSome));
  return jobs;
}

/** The command that makes the same image on one's own machine. */
export function commandOf(job) {
  const { spec } = job;
  const words = [
    'excite',
    'generate',
    quoted(spec.prompt),
    '--model',
    quoted(spec.model.split('@')[0]),
    '--seeds',
    spec.seed,
    ...(spec.subjects.length
      ? ['--subjects', quoted(spec.subjects.map((s) => subjectOf(s, spec.prompt)).join(','))]
      : []),
    ...(spec.negative_prompt ? ['--negative-prompt', quoted(spec.negative_prompt)] : []),
    '--steps',
    spec.steps,
    '--guidance-scale',
    spec.guidance_scale,
    '--scheduler',
    spec.scheduler,
    '--size',
    `${spec.width}x${spec.height}`,
    '--method',
    spec.method,
    ...(spec.noise ? ['--noise', spec.noise] : []),
    ...(job.accept ? ['--min-score', job.accept.min_score, '--max-seeds', job.accept.max_seeds] : []),
    ...(spec.method !== 'none' && spec.method_params
      ? ['--method-params', quoted(JSON.stringify(spec.method_params))]
      : []),
  ];
  return words.join(' ');
}

/** A subject by its word, or by its place where the word alone would not be clear. */
function subjectOf({ word, indices }, prompt) {
  const times = prompt
    .toLowerCase()
    .split(/[^\p{L}\p{N}'-]+/u)
    .filter((w) => w === word.toLowerCase()).length;
  return times > 1 && indices.length === 1 ? `#${indices[0]}` : word;
}

/** A word for a POSIX shell. */
function quoted(text) {
  return /^[\w@./,#=-]+$/.test(text) && !text.startsWith('#')
    ? text
    : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
