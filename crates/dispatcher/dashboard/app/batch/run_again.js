// Jobs again, with other seeds: a batch whose parent is theirs.

import { idempotencyKey, post } from '../api.js';
import { ask } from '../dialogs.js';
import { field, h } from '../dom.js';
import { batchName, counted } from '../format.js';
import { jobsOf, lineOf } from '../lines.js';
import { tell } from '../notices.js';
import { go } from '../router.js';

/**
 * @param {any} batch
 * @param {number[]} indices
 */
export function runAgain(batch, indices) {
  // One for each time the form is filled in: a second click must not make a second batch.
  const key = idempotencyKey();
  const first = 1 + Math.floor(Math.random() * 1_000_000);
  const seeds = h('input', {
    name: 'seeds',
    required: true,
    autocomplete: 'off',
    value: `${first}..${first + 4}`,
  });
  const name = h('input', { name: 'name', autocomplete: 'off', value: `${batchName(batch)}, other seeds` });
  let child = null;
  return ask({
    title: `Run ${counted(indices.length, 'job')} again`,
    content: [
      h('p', {}, 'Prompts, subjects and all settings stay; each seed makes an image of each job.'),
      field('Seeds', seeds, '5..9 are the seeds 5 to 8; 1,5,9 are these three.'),
      field('Name', name),
    ],
    confirm: 'Submit',
    work: async (data) => {
      const lines = (await originals(batch, indices)).map(lineOf);
      const wanted = String(data.get('seeds')).trim();
      const body = uniqueLines(lines, wanted)
        .map((line) => JSON.stringify(line))
        .join('\n');
      child = await post('/v1/batches', {
        query: {
          name: String(data.get('name')).trim(),
          model: batch.model.split('@')[0],
          attention: batch.attention || null,
          compare: batch.compare || null,
          parent: batch.id,
        },
        body,
        headers: { 'Content-Type': 'application/x-ndjson', 'Idempotency-Key': `${key}-${wanted}` },
      });
    },
  }).then((done) => {
    if (!done) return;
    tell(`Submitted: ${counted(child.jobs, 'job')}.`);
    go(`/batches/${child.id}`);
  });
}

/** The jobs, where plain ones made for comparison stand for those they are compared with. */
async function originals(batch, indices) {
  const jobs = await jobsOf(batch.id, indices);
  const forComparison = (job) => batch.compare && job.method === 'none' && job.compared_with !== null;
  const own = jobs.filter((job) => !forComparison(job));
  const known = new Set(own.map((job) => job.index));
  const others = jobs
    .filter(forComparison)
    .map((job) => job.compared_with)
    .filter((index) => !known.has(index));
  return [...own, ...(await jobsOf(batch.id, others))];
}

/** Jobs that differ in their seed only are one line now. */
function uniqueLines(lines, seeds) {
  const found = new Map();
  for (const { seed: _, ...line } of lines) {
    const again = { ...line, seeds };
    found.set(JSON.stringify({ ...again, custom_id: undefined }), again);
  }
  return [...found.values()];
}
