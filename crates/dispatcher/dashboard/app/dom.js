// Elements from code. Data only ever becomes text or attributes, never markup.
// Not here: what the pages look like (`css/`) or what they do.

import { icon } from './icons.js';

/**
 * An element with attributes and children. `on` holds listeners and `style` custom properties and styles;
 * both are set by script, as the content security policy wants it. What is null, undefined or false is left out.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | number | null | undefined | false | any[])} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === 'style') {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else if (name === 'value') {
      element.value = value;
    } else {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  element.append(...nodes(children));
  return element;
}

/** Puts other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/** A text of the server, where code stands between backticks. */
export function prose(text) {
  return text.split('`').map((part, n) => (n % 2 === 1 ? h('code', {}, part) : part));
}

/**
 * A button with an icon and a text.
 *
 * @param {string} text
 * @param {(event: Event) => void} press
 * @param {{icon?: string, kind?: 'primary' | 'danger' | 'quiet', label?: string, disabled?: boolean}} [options]
 */
export function button(text, press, options = {}) {
  return h(
    'button',
    {
      type: 'button',
      class: options.kind ?? null,
      'aria-label': options.label,
      disabled: options.disabled,
      on: { click: press },
    },
    options.icon && icon(options.icon),
    text,
  );
}

let ids = 0;

/** An id that no other element has, for labels and descriptions. */
export function freshId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

/** A control under its label, with a hint if there is something to say. */
export function field(label, control, hint) {
  control.id ||= freshId('field');
  const described = hint ? freshId('hint') : null;
  if (described) control.setAttribute('aria-describedby', described);
  return h(
    'div',
    { class: 'field' },
    h('label', { for: control.id }, label),
    control,
    hint && h('p', { class: 'hint', id: described }, hint),
  );
}

/** A checkbox with its label. */
export function checkbox(label, attributes, hint) {
  const input = h('input', { type: 'checkbox', ...attributes });
  const described = hint ? freshId('hint') : null;
  if (described) input.setAttribute('aria-describedby', described);
  return h(
    'div',
    { class: 'check' },
    h('label', {}, input, h('span', {}, label)),
    hint && h('p', { class: 'hint', id: described }, hint),
  );
}

/** A select of `[value, text]` pairs. */
export function select(attributes, options, chosen = '') {
  return h(
    'select',
    attributes,
    options.map(([value, text]) => h('option', { value, selected: value === chosen }, text)),
  );
}
