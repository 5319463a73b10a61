// What can be done with a batch. Each change says which revision it was made for: if another tab was first,
// nothing is changed and the reader is told what is different now.

import { get, patch, remove } from '../api.js';
import { ask } from '../dialogs.js';
import { button, field, h } from '../dom.js';
import { batchName, count, counted } from '../format.js';
import { tell, tellProblem } from '../notices.js';
import { go } from '../router.js';
import { may } from '../session.js';

const WEIGHT_MAX = 100;
const NAME_CHARS_MAX = 128;

/**
 * The buttons for a batch.
 *
 * @param {any} batch
 * @param {(batch: any) => void} update takes the batch as it is afterwards
 */
export function batchActions(batch, update) {
  const open = batch.state === 'active' || batch.state === 'paused';
  const change = (what, body) => () => changeNow(batch, body, what, update);
  const zip = h(
    'a',
    { class: 'button', href: `/v1/batches/${batch.id}/images.zip`, download: `${batch.id}.zip` },
    'Download all',
  );
  const submitter = may('submit');
  return [
    submitter &&
      batch.state === 'active' &&
      button('Pause', change('Paused.', { paused: true }), { icon: 'pause' }),
    submitter &&
      batch.state === 'paused' &&
      button('Resume', change('Resumed.', { paused: false }), { icon: 'play', kind: 'primary' }),
    submitter && button('Name', () => rename(batch, update), { icon: 'pencil' }),
    submitter && open && button('Weight', () => weigh(batch, update), { icon: 'scale' }),
    zip,
    submitter && open && button('Cancel', () => cancel(batch, update), { icon: 'stop' }),
    may('admin') && !open && button('Delete', () => erase(batch), { icon: 'trash' }),
  ];
}

async function send(batch, body, update) {
  const path = `/v1/batches/${batch.id}`;
  try {
    update(await patch(path, { json: body, headers: { 'If-Match': `"${batch.revision}"` } }));
  } catch (problem) {
    if (problem.code !== 'changed_meanwhile') throw problem;
    const fresh = await get(path);
    update(fresh);
    problem.message = `Nothing was done, since the batch was changed meanwhile: ${differences(batch, fresh)}.`;
    problem.remedy = 'If you still want the change, make it again.';
    // A dialog that stays open must not send the old revision again.
    Object.assign(batch, fresh);
    throw problem;
  }
}

/** What is different between two revisions, in words. */
function differences(before, after) {
  const found = [
    before.state !== after.state && `it is ${after.state} now`,
    before.weight !== after.weight && `its weight went from ${before.weight} to ${after.weight}`,
    before.name !== after.name && `its name is “${batchName(after)}” now`,
  ].filter(Boolean);
  return found.join(', ') || 'it looks the same as before';
}

async function changeNow(batch, body, said, update) {
  try {
    await send(batch, body, update);
    tell(said);
  } catch (problem) {
    tellProblem(problem);
  }
}

function rename(batch, update) {
  const name = h('input', {
    name: 'name',
    maxlength: NAME_CHARS_MAX,
    autocomplete: 'off',
    value: batch.name ?? '',
  });
  return ask({
    title: 'Name of the batch',
    content: field('Name', name),
    confirm: 'Save',
    work: (data) => send(batch, { name: String(data.get('name')).trim() }, update),
  });
}

function weigh(batch, update) {
  const weight = h('input', {
    name: 'weight',
    type: 'number',
    min: '1',
    max: WEIGHT_MAX,
    required: true,
    value: batch.weight,
  });
  return ask({
    title: 'Weight of the batch',
    content: field(
      'Weight',
      weight,
      `1 to ${WEIGHT_MAX}. A batch of weight 10 gets ten jobs to one of a batch of weight 1.`,
    ),
    confirm: 'Save',
    work: (data) => send(batch, { weight: Number(data.get('weight')) }, update),
  });
}

function cancel(batch, update) {
  return ask({
    title: 'Cancel the batch?',
    content: h(
      'p',
      {},
      `The open jobs of “${batchName(batch)}” are not made, and this cannot be undone. What is finished stays.`,
    ),
    confirm: 'Cancel the batch',
    danger: true,
    work: async () => {
      await send(batch, { cancelled: true }, update);
      tell('Cancelled.');
    },
  });
}

async function erase(batch) {
  const path = `/v1/batches/${batch.id}`;
  try {
    const { objects, images } = await remove(path, { query: { dry_run: true } });
    await ask({
      title: 'Delete the batch?',
      content: h(
        'p',
        {},
        `“${batchName(batch)}” and all that is stored of it go: ${counted(images, 'image')}, ${count(objects)} objects in all. This cannot be undone.`,
      ),
      confirm: 'Delete the batch',
      danger: true,
      work: async () => {
        await remove(path);
        tell('Deleted.');
        go('/batches', { replace: true });
      },
    });
  } catch (problem) {
    tellProblem(problem);
  }
}
