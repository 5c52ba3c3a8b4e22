/**
 * The conversation in the phone's own storage: written after every turn, read when the page opens, and gone for good
 * with one call. Nothing is sent anywhere. A browser that keeps nothing still talks; it then forgets with the page.
 */

const KEY = "conversation";
const FORMAT = "symptomchat-talk/1";

/** The kept state, or null where there is none; what cannot be read is removed, and said with an error. */
export function kept() {
  let text;
  try {
    text = localStorage.getItem(KEY);
  } catch {
    return null;
  }
  if (text === null) return null;
  const state = read(text);
  if (state) return state;
  forget();
  throw new Error("what this phone kept of the conversation cannot be read and was removed");
}

/** The state in a kept text, or null where it cannot be read. */
function read(text) {
  try {
    const { format, state } = JSON.parse(text);
    return format === FORMAT && Array.isArray(state.turns) ? state : null;
  } catch {
    return null;
  }
}

/** Keep a state; whether the browser does. An empty conversation leaves nothing behind. */
export function keep(state) {
  if (!state.turns.length) return forget();
  try {
    localStorage.setItem(KEY, JSON.stringify({ format: FORMAT, state }));
    return true;
  } catch {
    return false;
  }
}

/** Remove what is kept; whether the browser could. */
export function forget() {
  try {
    localStorage.removeItem(KEY);
    return true;
  } catch {
    return false;
  }
}

/** Follow what another tab of the same app does: `changed` is called with its state, or null once it has forgotten. */
export function follow(changed) {
  window.addEventListener("storage", ({ key, newValue }) => {
    if (key !== KEY && key !== null) return;
    changed(newValue === null ? null : read(newValue));
  });
}
