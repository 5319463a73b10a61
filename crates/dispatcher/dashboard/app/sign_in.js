// The view for those who are not signed in.

import { field, fill, h } from './dom.js';
import { icon } from './icons.js';
import { problemBox } from './problem.js';
import { signIn } from './session.js';

/**
 * @param {HTMLElement} main
 * @param {() => void} whenSignedIn
 * @param {string | null} [why] what brought the reader here
 */
export function signInView(main, whenSignedIn, why = null) {
  document.title = 'Sign in – Excite';
  const trouble = h('div');
  const token = h('input', {
    type: 'password',
    name: 'token',
    autocomplete: 'current-password',
    required: true,
  });
  const enter = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const form = h(
    'form',
    { class: 'card sign-in' },
    h('h1', {}, 'Sign in'),
    why && h('p', { class: 'warning', role: 'alert' }, icon('warning'), why),
    field('Token', token, 'Whoever runs Excite gives you one.'),
    trouble,
    h('div', { class: 'row' }, enter),
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    enter.disabled = true;
    fill(trouble);
    try {
      await signIn(token.value.trim());
      whenSignedIn();
    } catch (problem) {
      fill(trouble, problemBox(problem));
      token.select();
    }
    enter.disabled = false;
  });
  main.append(form);
  token.focus();
}
