// Numbers and names as people read them.

const MISSING = '–';

const integers = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** `12,345` */
export function count(n) {
  return n === null || n === undefined ? MISSING : integers.format(n);
}

/** `1 job`, `12 jobs` */
export function counted(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** A number with as many digits as its size deserves: `0.034`, `1.2`, `140`. */
export function decimal(n) {
  if (n === null || n === undefined) return MISSING;
  const size = Math.abs(n);
  const digits = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return new Intl.NumberFormat('en', { maximumFractionDigits: digits }).format(n);
}

/** A score, loss or other share of one: `0.72` */
export function score(n) {
  return n === null || n === undefined ? MISSING : n.toFixed(2);
}

/** The weakest subject's score; null where nothing was scored. */
export function leastScore(scores) {
  const known = (scores ?? []).filter((n) => n !== null);
  return known.length ? Math.min(...known) : null;
}

/** @type {[number, string][]} */
const UNITS = [
  [86400, 'd'],
  [3600, 'h'],
  [60, 'min'],
  [1, 's'],
];

/** `4.2 s`, `3 min 20 s`, `2 h 5 min`; `parts` says how many units at most. */
export function duration(seconds, parts = 2) {
  if (seconds === null || seconds === undefined) return MISSING;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  let left = Math.round(seconds);
  const said = [];
  for (const [size, unit] of UNITS) {
    const n = Math.floor(left / size);
    if (n > 0 || said.length > 0) said.push(n > 0 ? `${n} ${unit}` : null);
    left -= n * size;
    if (said.length === parts) break;
  }
  return said.filter(Boolean).join(' ');
}

/** `31.0 kB` */
export function bytes(n) {
  if (n === null || n === undefined) return MISSING;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let size = n;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** An amount of money; small ones keep their digits. */
export function money(amount, currency) {
  if (amount === null || amount === undefined) return MISSING;
  const digits = Math.abs(amount) < 0.1 && amount !== 0 ? 4 : 2;
  const number = amount.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: digits });
  return currency ? `${number} ${currency}` : number;
}

/** Enough of a batch's id to tell it from others; the commands of `excite` take it as well. */
export function shortId(id) {
  return id.slice(0, 13);
}

/** What a batch is called. */
export function batchName(batch) {
  return batch.name || shortId(batch.id);
}

/** `emoji@8d3f0a7be2` of a name with its whole digest. */
export function modelName(name) {
  const [model, digest] = name.split('@');
  return digest ? `${model}@${digest.slice(0, 10)}` : model;
}

const METHODS = {
  attend_and_excite: 'Attend-and-Excite',
  composable: 'Composable Diffusion',
  none: 'plain SD',
  structure: 'StructureDiffusion',
  syngen: 'SynGen',
};

/** What the field calls a method. */
export function methodName(method) {
  return METHODS[method] ?? method;
}

/** A code such as `out_of_memory` as words. */
export function words(code) {
  return code.replaceAll('_', ' ');
}
