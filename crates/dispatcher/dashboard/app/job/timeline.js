// What happened to a job, one thing after another.

import { absolute } from '../clock.js';
import { h, prose } from '../dom.js';
import { duration } from '../format.js';

export function timeline(job) {
  const start = Date.parse(job.timeline[0]?.at);
  return h(
    'section',
    { 'aria-labelledby': 'timeline' },
    h('div', { class: 'section-head' }, h('h2', { id: 'timeline' }, 'Timeline')),
    job.timeline.length === 0
      ? h('p', { class: 'quiet' }, 'Nothing has happened yet.')
      : h(
          'ol',
          { class: 'timeline' },
          job.timeline.map((entry) => moment(entry, start)),
        ),
  );
}

function moment(entry, start) {
  const details = [
    entry.worker && `on ${entry.worker}`,
    entry.step !== null && `at step ${entry.step}`,
    entry.attempt !== null && `attempt ${entry.attempt}`,
  ].filter(Boolean);
  const after = (Date.parse(entry.at) - start) / 1000;
  return h(
    'li',
    { class: `event-${entry.event}` },
    h('strong', {}, entry.event),
    details.length > 0 && h('span', {}, ` ${details.join(', ')}`),
    h(
      'time',
      { datetime: entry.at, title: absolute(entry.at) },
      after > 0 ? `+${duration(after)}` : absolute(entry.at),
    ),
    entry.message && h('p', { class: 'quiet' }, prose(entry.message)),
  );
}
