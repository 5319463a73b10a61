// Line charts: uPlot with the dashboard's colours, a legend, and a table for those who do not see them.

import uPlot from '../vendor/uplot/uPlot.esm.js';
import { dataTable, lastKnown, summary } from './chart_text.js';
import { button, fill, freshId, h } from './dom.js';

const dark = matchMedia('(prefers-color-scheme: dark)');

/**
 * @typedef {{legend: string, name: string, list: {x: number, text: string, meaning: string}[]}} Marks upright lines
 * @typedef {{label: string, color: string, format: (n: number | null) => string}} Series `color` is the name
 *   of a custom property
 *
 * @param {{title: string, x: {label: string, time: boolean, format: (n: number) => string}, series: Series[],
 *   height?: number, max?: number, marks?: Marks}} options
 * @param {AbortSignal} signal
 * @returns {{element: HTMLElement, show: (data: (number | null)[][]) => void}} `show` takes the xs, then the ys
 */
export function lineChart(options, signal) {
  const id = freshId('chart');
  const canvas = h('div', { class: 'chart-canvas', role: 'img' });
  const legend = h('ul', { class: 'legend' });
  const table = h('div');
  const opener = button('Table', () => toggleTable(), { kind: 'quiet' });
  opener.setAttribute('aria-expanded', 'false');
  const element = h(
    'section',
    { class: 'chart', 'aria-labelledby': id },
    h('div', { class: 'chart-head' }, h('h3', { id }, options.title), opener),
    legend,
    canvas,
    table,
  );
  let data = [[], ...options.series.map(() => [])];
  let plot = null;

  const draw = () => {
    plot?.destroy();
    plot = new uPlot(
      plotOptions(options, canvas, (at) => showLegend(at)),
      data,
      canvas,
    );
  };

  function showLegend(at) {
    const pointed = at !== null && at !== undefined;
    const where = pointed && options.x.format(data[0][at]);
    fill(
      legend,
      options.series.map((series, n) =>
        h(
          'li',
          {},
          h('span', { class: 'swatch', style: { background: `var(${series.color})` } }),
          // One line is named by the title.
          options.series.length > 1 && `${series.label} `,
          h('strong', {}, series.format(pointed ? (data[n + 1][at] ?? null) : lastKnown(data[n + 1]))),
        ),
      ),
      options.marks && h('li', { class: 'quiet' }, options.marks.legend),
      where && h('li', { class: 'quiet' }, where),
    );
  }

  function toggleTable() {
    const open = opener.getAttribute('aria-expanded') !== 'true';
    opener.setAttribute('aria-expanded', String(open));
    showTable();
  }

  function showTable() {
    fill(table, opener.getAttribute('aria-expanded') === 'true' && dataTable(options, data));
  }

  const watcher = new ResizeObserver(() => {
    const { clientWidth: width } = canvas;
    if (plot && width > 0 && width !== plot.width) plot.setSize({ width, height: options.height ?? 160 });
    else if (!plot && width > 0) draw();
  });
  watcher.observe(canvas);
  dark.addEventListener('change', draw, { signal });
  signal.addEventListener(
    'abort',
    () => {
      watcher.disconnect();
      plot?.destroy();
    },
    { once: true },
  );

  return {
    element,
    show(fresh) {
      data = fresh;
      plot?.setData(data);
      showLegend(null);
      showTable();
      canvas.setAttribute('aria-label', summary(options, data));
    },
  };
}

function plotOptions(options, canvas, whenPointed) {
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: color('--text-quiet'),
    font: `11px ${style.fontFamily}`,
    grid: { stroke: color('--line'), width: 1 },
    ticks: { show: false },
  };
  const top = options.max ?? null;
  return {
    width: canvas.clientWidth,
    height: options.height ?? 160,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: options.x.time },
      // From 0, and never flat: a line in the middle of nothing says nothing.
      y: { range: (_, __, high) => [0, top ?? (high > 0 ? high * 1.1 : 1)] },
    },
    axes: [
      { ...axis, size: 26, gap: 4, space: 60, values: options.x.time ? timeLabels : undefined },
      { ...axis, size: 48, space: 30 },
    ],
    series: [
      {},
      ...options.series.map((series) => ({
        label: series.label,
        stroke: color(series.color),
        width: 2,
        points: { show: false },
      })),
    ],
    hooks: {
      setCursor: [(plot) => whenPointed(plot.cursor.idx)],
      draw: [(plot) => drawMarks(plot, options.marks?.list ?? [], color('--warn'))],
    },
  };
}

function timeLabels(plot, seconds, _axis, _space, step) {
  // Around less than two points the axis has some length, which says nothing.
  if (plot.data[0].length < 2) return seconds.map(() => '');
  // Where labels are less than a minute apart they would all be the same without seconds.
  const parts = { hour: '2-digit', minute: '2-digit', second: step < 60 ? '2-digit' : undefined };
  return seconds.map((s) => new Date(s * 1000).toLocaleTimeString('en-GB', parts));
}

function drawMarks(plot, marks, color) {
  const { ctx, bbox } = plot;
  const scale = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = color;
  ctx.fillStyle = color;
  ctx.lineWidth = scale;
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  ctx.textAlign = 'left';
  ctx.textBaseline = 'top';
  ctx.setLineDash([3 * scale, 3 * scale]);
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.x, 'x', true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(mark.text, x + 4 * scale, bbox.top + 2 * scale);
  }
  ctx.restore();
}
