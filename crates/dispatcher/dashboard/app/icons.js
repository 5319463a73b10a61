// The icons, as paths in a square of 16. They are part of the program text, so that they are there also
// when the server is not.

const SPACE = 'http://www.w3.org/2000/svg';

const PATHS = {
  again: 'M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3',
  check: 'M3 8.5l3.2 3.2L13 4.7',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  cross: 'M4 4l8 8M12 4l-8 8',
  download: 'M8 2v8M4.8 7L8 10.2 11.2 7M3 13.5h10',
  drain: 'M8 2.2s4.3 4.4 4.3 7.2a4.3 4.3 0 0 1-8.6 0C3.7 6.6 8 2.2 8 2.2z',
  leave: 'M9 3H3.5v10H9M7 8h6.5M11 5.5L13.5 8 11 10.5',
  left: 'M10 3L5 8l5 5',
  pause: 'M5.5 3v10M10.5 3v10',
  pencil: 'M3 13l.7-3L11 2.7 13.3 5 6 12.3z',
  play: 'M5 3l8 5-8 5z',
  plus: 'M8 3v10M3 8h10',
  right: 'M6 3l5 5-5 5',
  scale: 'M3 11h10M5 11V7M8 11V3M11 11V8.5',
  stop: 'M4 4h8v8H4z',
  trash: 'M2.5 4.5h11M6 4.5v-2h4v2M4 4.5l.7 9h6.6l.7-9M6.7 7v4M9.3 7v4',
  upload: 'M8 10.5v-8M4.8 5.5L8 2.3l3.2 3.2M3 13.5h10',
  warning: 'M8 2l6.5 11.5h-13zM8 6.5v3.2M8 11.6v.4',
};

/** An icon. It is never the only name of a control. */
export function icon(name) {
  const svg = document.createElementNS(SPACE, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SPACE, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}
