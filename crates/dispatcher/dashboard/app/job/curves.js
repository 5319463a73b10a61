// Loss and scores over the steps, with the refinements.

import { lineChart } from '../chart.js';
import { h } from '../dom.js';
import { counted, score } from '../format.js';

const COLORS = 6;

/**
 * @param {any} job
 * @param {AbortSignal} signal
 * @returns {HTMLElement | null} null where nothing is stored
 */
export function curves(job, signal) {
  const { curve } = job;
  if (curve.length === 0) return null;
  const x = { label: 'Step', time: false, format: (step) => `step ${step}` };
  const steps = curve.map((_, step) => step);
  const refined = curve
    .map((entry, step) => ({
      x: step,
      text: String(entry.refinements),
      meaning: counted(entry.refinements, 'refinement'),
    }))
    .filter((mark) => curve[mark.x].refinements > 0);
  const marks = refined.length
    ? { name: 'Refinements', legend: 'dashed: refinements at the step, and how many', list: refined }
    : undefined;
  const found = [];
  const { subjects } = job.spec;
  if (subjects.length > 0) {
    const series = subjects.map((subject, n) => ({
      label: subject.word,
      color: `--series-${(n % COLORS) + 1}`,
      format: score,
    }));
    const chart = lineChart({ title: 'Scores by step', x, series, height: 220, max: 1.02, marks }, signal);
    chart.show([steps, ...subjects.map((_, n) => curve.map((entry) => entry.scores[n] ?? null))]);
    found.push(chart.element);
  }
  if (curve.some((entry) => entry.loss !== null)) {
    const series = [{ label: 'loss', color: '--series-4', format: score }];
    const chart = lineChart({ title: 'Loss by step', x, series, height: 220, max: 1.02, marks }, signal);
    chart.show([steps, curve.map((entry) => entry.loss)]);
    found.push(chart.element);
  }
  return h(
    'section',
    { 'aria-labelledby': 'curves' },
    h(
      'div',
      { class: 'section-head' },
      h('h2', { id: 'curves' }, 'Step by step'),
      job.measured_at_step !== null &&
        h('span', { class: 'quiet' }, `the scores above are those of step ${job.measured_at_step}`),
    ),
    h('div', { class: 'charts' }, found),
  );
}
