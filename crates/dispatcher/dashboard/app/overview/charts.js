// The charts of the overview: the last hour from the statistics, then on with the events.

import { get } from '../api.js';
import { serverNow } from '../clock.js';
import { lineChart } from '../chart.js';
import { h } from '../dom.js';
import { count, decimal } from '../format.js';

const MINUTES = 60;
/** Events are denser than statistics and know less: these replace them now and then. */
const RELOAD_EVERY_MS = 60_000;

const CHARTS = [
  { key: 'images_per_second', title: 'Images per second', color: '--series-1', format: decimal },
  { key: 'backlog_jobs', title: 'Jobs in the backlog', color: '--series-2', format: count },
  { key: 'workers_ready', title: 'Workers ready', color: '--series-3', format: count },
  { key: 'failures_per_second', title: 'Failures per second', color: '--series-4', format: decimal },
];

/** @param {AbortSignal} signal */
export function charts(signal) {
  const x = {
    label: 'Time',
    time: true,
    format: (seconds) => new Date(seconds * 1000).toLocaleTimeString('en-GB'),
  };
  const drawn = CHARTS.map(({ title, color, format }) =>
    lineChart({ title, x, series: [{ label: title, color, format }] }, signal),
  );
  let points = [];
  let loadedAt = 0;

  function draw() {
    CHARTS.forEach(({ key }, n) => {
      drawn[n].show([points.map((p) => p.at), points.map((p) => p[key] ?? null)]);
    });
  }

  async function load() {
    loadedAt = performance.now();
    points = (await get('/v1/statistics', { query: { minutes: MINUTES }, signal })).points;
    draw();
  }

  return {
    element: h(
      'section',
      { 'aria-labelledby': 'history' },
      h('div', { class: 'section-head' }, h('h2', { id: 'history' }, 'Last hour')),
      h(
        'div',
        { class: 'charts' },
        drawn.map((chart) => chart.element),
      ),
    ),
    load,
    /** Adds what an event says. */
    add(overview) {
      if (performance.now() - loadedAt > RELOAD_EVERY_MS) return void load().catch(() => {});
      const at = Date.parse(overview.at) / 1000;
      if (points.length && at <= points.at(-1).at) return undefined;
      const oldest = serverNow() / 1000 - MINUTES * 60;
      points = points.filter((point) => point.at >= oldest);
      points.push({ ...overview, at, workers_ready: overview.workers.ready });
      return draw();
    },
  };
}
