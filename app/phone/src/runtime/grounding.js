/**
 * Whether a generated claim is supported by the knowledge base. Port of `symptomchat/runtime/grounding.py`.
 *
 * In: a condition and a generated symptom or treatment. Out: supported or not.
 */

import constants from "../constants.js";
import { split } from "./python.js";

const STOP = new Set(constants.stop);

/** Lower-case words without punctuation. */
export function normal(text) {
  return (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).join(" ");
}

/** What was asked before: the ways to say one record are compared with each claim of an answer. */
const known = new Map();
const MOST_KNOWN = 8192;

/** Content words, with a plural s taken off. */
export function content(text) {
  let found = known.get(text);
  if (found === undefined) {
    const words = split(normal(text)).filter((word) => !STOP.has(word));
    found = new Set(
      words.map((word) =>
        [...word].length > 3 && word.endsWith("s") && !word.endsWith("ss") ? word.slice(0, -1) : word),
    );
    if (known.size >= MOST_KNOWN) known.clear();
    known.set(text, found);
  }
  return found;
}

function equal(a, b) {
  return a.size === b.size && [...a].every((word) => b.has(word));
}

/** The record that supports a claim, or null; `phrasings` are other ways to say a record. */
export function supported(claim, records, phrasings = {}) {
  const words = content(claim);
  if (!words.size) return null;
  for (const record of records) {
    const ways = Object.hasOwn(phrasings, record) ? phrasings[record] : [];
    if ([record, ...ways].some((way) => equal(content(way), words))) return record;
  }
  return null;
}

/** Give acronyms and names their capitals back (`mri` → `MRI`) and tidy the spacing of punctuation. */
export function restoreCase(text, cased) {
  return text
    .replace(/\s+([,.;:!?%)])/gu, "$1")
    .replace(/([(])\s+/gu, "$1")
    .replace(/\s*([-/'’])\s*/gu, "$1")
    .replace(/[\p{L}\p{N}]+/gu, (word) => (Object.hasOwn(cased, word) ? cased[word] : word));
}
