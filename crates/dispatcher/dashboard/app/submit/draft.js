// Lines that another page hands to the submit form. Kept until the form is sent, so that a reload keeps them.

const KEY = 'excite-draft';

/** @param {{parent: string, lines: string}} draft */
export function keepDraft(draft) {
  sessionStorage.setItem(KEY, JSON.stringify(draft));
}

/** @returns {{parent: string, lines: string} | null} */
export function keptDraft() {
  return JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
}

export function dropDraft() {
  sessionStorage.removeItem(KEY);
}
