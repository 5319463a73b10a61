// Where the model looked for each subject: its map, drawn over the image.

import { h } from '../dom.js';
import { score } from '../format.js';

/** How strongly the least and the most attended places are coloured. */
const ALPHA = [0.25, 0.8];
/** From no attention to the most, as [share, red, green, blue]. */
const COLOURS = [
  [0, 12, 16, 48],
  [0.35, 106, 28, 110],
  [0.65, 224, 80, 52],
  [0.85, 250, 180, 30],
  [1, 252, 250, 190],
];

/**
 * @param {string} batch its id
 * @param {any} job
 */
export function heatMaps(batch, job) {
  const source = `/v1/batches/${batch}/jobs/${job.index}/image`;
  const subjects = job.spec.subjects.slice(0, job.maps.length);
  return h(
    'section',
    { 'aria-labelledby': 'heat' },
    h(
      'div',
      { class: 'section-head' },
      h('h2', { id: 'heat' }, 'Attention'),
      job.outputs.attention &&
        h(
          'a',
          { href: `/v1/batches/${batch}/jobs/${job.index}/attention`, target: '_blank' },
          'As one picture',
        ),
    ),
    h(
      'div',
      { class: 'heat' },
      subjects.map((subject, n) =>
        h(
          'figure',
          {},
          drawn(source, job, job.maps[n], `Where the model looked for “${subject.word}”`),
          h(
            'figcaption',
            {},
            h('strong', {}, subject.word),
            h('span', {}, ` score ${score(job.success?.scores[n] ?? null)}`),
          ),
        ),
      ),
    ),
  );
}

function drawn(source, job, map, label) {
  const { width, height } = job.spec;
  const canvas = /** @type {HTMLCanvasElement} */ (
    h('canvas', { width, height, role: 'img', 'aria-label': label })
  );
  const image = new Image();
  image.addEventListener('load', () => {
    const context = canvas.getContext('2d');
    // In grey, so that only attention has a colour.
    context.filter = 'grayscale(1) brightness(0.75)';
    context.drawImage(image, 0, 0, width, height);
    context.filter = 'none';
    context.imageSmoothingQuality = 'high';
    context.drawImage(coloured(map), 0, 0, width, height);
  });
  image.src = source;
  return canvas;
}

/** The map as a picture of one pixel a place. */
function coloured(map) {
  const values = Uint8Array.from(atob(map.values), (letter) => letter.charCodeAt(0));
  const small = document.createElement('canvas');
  small.width = map.width;
  small.height = map.height;
  const context = small.getContext('2d');
  const pixels = context.createImageData(map.width, map.height);
  values.forEach((value, n) => {
    const share = value / 255;
    const alpha = ALPHA[0] + (ALPHA[1] - ALPHA[0]) * share;
    pixels.data.set([...colour(share), Math.round(alpha * 255)], n * 4);
  });
  context.putImageData(pixels, 0, 0);
  return small;
}

function colour(share) {
  const above = COLOURS.findIndex(([at]) => at >= share);
  const [to, ...high] = COLOURS[Math.max(above, 1)];
  const [from, ...low] = COLOURS[Math.max(above, 1) - 1];
  const part = (share - from) / (to - from);
  return high.map((value, n) => Math.round(low[n] + (value - low[n]) * part));
}
