// The figures of the overview.

import { fill, h } from '../dom.js';
import { figureList } from '../facts.js';
import { count, counted, decimal, duration, money, words } from '../format.js';
import { icon } from '../icons.js';

/** @returns {{element: HTMLElement, show: (overview: any) => void}} */
export function figures() {
  const list = figureList();
  const trouble = h('div', { role: 'status' });
  let told = '';
  return {
    element: h('section', { class: 'stack', 'aria-label': 'Figures' }, trouble, list.element),
    show(overview) {
      const texts = troubles(overview);
      if (texts.join() !== told) {
        told = texts.join();
        fill(
          trouble,
          texts.map((text) => h('p', { class: 'warning' }, icon('warning'), text)),
        );
      }
      list.show(tiles(overview));
    },
  };
}

function tiles(o) {
  const failures = Object.entries(o.failures).filter(([, n]) => n > 0);
  return [
    ['Images per second', decimal(o.images_per_second)],
    [
      'Backlog',
      count(o.backlog_jobs),
      `jobs in ${counted(o.active_batches, 'active batch', 'active batches')}`,
    ],
    [
      'Time to drain',
      duration(o.drain_seconds),
      o.backlog_seconds !== null && `${duration(o.backlog_seconds)} of GPU time`,
    ],
    ['Oldest job', duration(o.oldest_seconds), o.oldest_seconds !== null && 'has waited so long'],
    [
      'Workers ready',
      count(o.workers.ready),
      [
        o.workers.desired !== null && `${count(o.workers.desired)} desired`,
        `${count(o.workers.total)} in all`,
      ]
        .filter(Boolean)
        .join(', '),
    ],
    [
      'Failures, last hour',
      count(failures.reduce((sum, [, n]) => sum + n, 0)),
      failures.map(([name, n]) => `${count(n)} ${words(name)}`).join(', ') || 'none',
    ],
    ['Accepted images', decimal(o.accepted_per_gpu_hour), 'per GPU hour'],
    [
      'Cost per hour',
      money(o.cost_per_hour, o.currency),
      o.cost_per_image !== null && `${money(o.cost_per_image, o.currency)} an image`,
    ],
  ];
}

function troubles(o) {
  return [
    !o.broker.connected && 'The broker is not connected: no job is handed out until it is.',
    o.broker.connected && o.broker.blocked && 'The broker is blocked: it is short of memory or disk.',
    !o.leader && 'No dispatcher leads: batches are accepted, but no job is handed out.',
    o.backlog_jobs > 0 && o.workers.ready === 0 && 'Jobs wait, but no worker is ready.',
  ].filter(Boolean);
}
