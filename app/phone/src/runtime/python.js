/**
 * The few string and number operations whose Python and JavaScript versions differ, done as Python does them.
 *
 * The rest of the port compares word for word with the Python package only because of these.
 */

/** What Python's `str.isspace` holds for, as the inside of a character class. */
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
/** What Python's `\w` matches in text, as the inside of a character class. */
export const WORD = "\\p{L}\\p{N}_";

const EDGES = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, "gu");
const GAP = new RegExp(`[${SPACE}]+`, "u");
const ANY_SPACE = new RegExp(`[${SPACE}]`, "u");

const EDGE = `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`;
const OUTSIDE = { "\\w": `[${WORD}]`, "\\W": `[^${WORD}]`, "\\s": `[${SPACE}]`, "\\d": "\\p{Nd}", "\\b": EDGE, $: "(?=\\n?$)", ".": "[^\\n]" };
const INSIDE = { "\\w": WORD, "\\s": SPACE, "\\d": "\\p{Nd}" };

/**
 * A Python pattern as a JavaScript one for the flag `u`: words, digits, spaces and the edges of words are those of
 * every language, `.` stops at a line feed alone, and `$` also matches before a line feed at the end. Only what the
 * runtime's own patterns use is translated.
 */
export function fromPython(pattern) {
  const parts = pattern.match(/\[\^?(?:\\[^]|[^\]\\])+\]|\\[^]|[^]/gu) ?? [];
  return parts.map((part) => (part.length > 1 && part.startsWith("[") ? setFromPython(part) : (OUTSIDE[part] ?? part))).join("");
}

/** A set of characters; the one that leaves out non-words and the underline is that of letters and digits. */
function setFromPython(set) {
  if (set === "[^\\W_]") return "[\\p{L}\\p{N}]";
  return set.replace(/\\[^]/gu, (escaped) => INSIDE[escaped] ?? escaped);
}

/** `re.compile(pattern, flags)`; the flags are JavaScript's, with `i` for `re.IGNORECASE`. */
export function compile(pattern, flags = "") {
  return new RegExp(fromPython(pattern), `${flags}u`);
}

/** `text.strip()`. */
export function strip(text) {
  return text.replace(EDGES, "");
}

/** `text.strip(edges)` for a set of characters, written as the inside of a character class. */
export function stripOf(text, edges) {
  return text.replace(new RegExp(`^[${edges}]+|[${edges}]+$`, "gu"), "");
}

/** `text.split()`. */
export function split(text) {
  const inner = strip(text);
  return inner ? inner.split(GAP) : [];
}

/** `char.isspace()`. */
export function isSpace(char) {
  return ANY_SPACE.test(char);
}

/** `char.isprintable()` or `char.isspace()`. */
export function isReadable(char) {
  return isSpace(char) || !/\p{C}/u.test(char);
}

/** `round(value, digits)`. */
export function round(value, digits) {
  return Number(value.toFixed(digits));
}

/** `f"{value:.0%}"`: halves go to the even neighbour. */
export function percent(value) {
  const scaled = value * 100;
  const below = Math.floor(scaled);
  const whole = scaled - below === 0.5 ? below + (below % 2) : Math.round(scaled);
  return `${whole}%`;
}
