// The bar for selected jobs: what can be done with them.

import { withQuery } from '../api.js';
import { button, fill, h } from '../dom.js';
import { counted } from '../format.js';
import { icon } from '../icons.js';
import { may } from '../session.js';
import { runAgain } from './run_again.js';

/**
 * @param {import('./selection.js').Selection} selection
 * @param {() => any} batch as it is now
 */
export function selectedBar(selection, batch) {
  const bar = h('div', { class: 'selected', role: 'region', 'aria-label': 'Selected jobs', hidden: true });
  const said = h('span', { role: 'status' });
  const zip = h('a', { class: 'button', download: true }, icon('download'), 'Download as zip');
  const again =
    may('submit') &&
    button('Run again with other seeds', () => runAgain(batch(), selection.indices), {
      icon: 'again',
      kind: 'primary',
    });
  fill(
    bar,
    said,
    again,
    zip,
    button('Clear', () => selection.clear(), { icon: 'cross', kind: 'quiet' }),
  );
  selection.addEventListener('change', () => {
    bar.hidden = selection.size === 0;
    said.textContent = `${counted(selection.size, 'job')} selected`;
    zip.href = withQuery(`/v1/batches/${batch().id}/images.zip`, { indices: selection.indices.join(',') });
  });
  return bar;
}
