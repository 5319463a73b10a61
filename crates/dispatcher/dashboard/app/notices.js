// Short messages that come and go; screen readers read them aloud.

import { button, h, prose } from './dom.js';
import { duration } from './format.js';

const SHOWN_MS = 6000;

/** Says that something was done. */
export function tell(text) {
  const notice = show('notice', text);
  setTimeout(() => notice.remove(), SHOWN_MS);
}

/** Says that something was not done; stays until it is put away. */
export function tellProblem(problem) {
  if (problem.name === 'AbortError' || problem.status === 401) return;
  const when = problem.retryAfter ? `Try again in ${duration(problem.retryAfter)}.` : '';
  show('notice bad', [problem.message, problem.remedy, when].filter(Boolean).join(' '));
}

/** Says it to screen readers only: what others see anyway. */
export function announce(text) {
  const notice = show('hidden-text', text);
  setTimeout(() => notice.remove(), SHOWN_MS);
}

function show(kind, text) {
  const notice = h('div', { class: kind }, h('p', {}, prose(text)));
  if (kind !== 'hidden-text') {
    notice.append(button('', () => notice.remove(), { icon: 'cross', kind: 'quiet', label: 'Put away' }));
  }
  document.getElementById('notices').append(notice);
  return notice;
}
