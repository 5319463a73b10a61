// Moving through the gallery and selecting in it, by keyboard and by mouse.
//
// One image is in the order of tabs at a time, with its checkbox; arrow keys move on from there. So a
// gallery of thousands is one stop, as a list box would be, while links stay links.

/** @param {import('./selection.js').Selection} selection */
export function galleryKeys(list, selection, shown) {
  let current = null;

  function setCurrent(card, focus) {
    tabStop(current, '-1');
    current = card;
    tabStop(current, '0');
    if (focus) current.querySelector('a').focus();
  }

  function tabStop(card, value) {
    for (const control of card?.querySelectorAll('a, input') ?? []) control.tabIndex = Number(value);
  }

  function mark() {
    for (const card of list.children) {
      const chosen = selection.has(Number(card.dataset.index));
      card.classList.toggle('chosen', chosen);
      card.querySelector('input').checked = chosen;
    }
    list.classList.toggle('choosing', selection.size > 0);
  }

  function columns() {
    const [first] = list.children;
    return [...list.children].findIndex((card) => card.offsetTop > first.offsetTop);
  }

  function targetOf(key) {
    const cards = [...list.children];
    const at = cards.indexOf(current);
    // One row only: up and down lead nowhere.
    const row = columns() < 0 ? cards.length : columns();
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row };
    if (key === 'Home') return cards[0];
    if (key === 'End') return cards.at(-1);
    return key in steps ? cards[at + steps[key]] : undefined;
  }

  function press(event) {
    const card = event.target.closest('.shot');
    if (!card || event.altKey) return;
    const index = Number(card.dataset.index);
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key === 'a') {
      selection.all(shown());
    } else if (event.key === 'Escape' && selection.size > 0) {
      selection.clear();
    } else if (event.key === ' ' && event.target.matches('a')) {
      if (event.shiftKey) selection.extend(index, shown());
      else selection.toggle(index);
    } else if (!command && targetOf(event.key)) {
      if (event.shiftKey && !selection.has(index)) selection.toggle(index);
      setCurrent(targetOf(event.key), true);
      if (event.shiftKey) selection.extend(Number(current.dataset.index), shown());
    } else {
      return;
    }
    event.preventDefault();
  }

  function click(event) {
    const card = event.target.closest('.shot');
    if (!card || event.ctrlKey || event.metaKey) return;
    const index = Number(card.dataset.index);
    const onBox = event.target.closest('.pick');
    if (event.shiftKey) {
      selection.extend(index, shown());
    } else if (onBox || (selection.size > 0 && event.detail > 0)) {
      // Without `detail` it is the Enter key, which always opens. A click on the label comes again from the box itself.
      if (onBox && !event.target.matches('input')) return;
      selection.toggle(index);
    } else {
      return;
    }
    // The box follows the selection; a change by the browser besides would undo it.
    if (!onBox || event.shiftKey) event.preventDefault();
    setTimeout(mark);
  }

  list.addEventListener('keydown', press);
  list.addEventListener('click', click);
  list.addEventListener('focusin', (event) => {
    const card = event.target.closest('.shot');
    if (card && card !== current) setCurrent(card, false);
  });
  selection.addEventListener('change', mark);

  return {
    /** A card has come. */
    added(card) {
      if (!current?.isConnected) setCurrent(card, false);
      const chosen = selection.has(Number(card.dataset.index));
      card.classList.toggle('chosen', chosen);
      card.querySelector('input').checked = chosen;
    },
  };
}
