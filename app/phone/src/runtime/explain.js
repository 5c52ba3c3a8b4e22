/**
 * Which words mattered: occlusion over the user's words. Port of `symptomchat/runtime/explain.py`.
 *
 * In: how sure the model is of a text, as a function, and the text. Out: spans of the text, each with how much the
 * odds of the first condition fall when the span is left out. One pass of the model per span, with a stated limit.
 */

import constants from "../constants.js";
import { compile, round, strip } from "./python.js";

const { mostPasses: MOST_PASSES } = constants.explain;
/** A span is worth marking where leaving it out moves the log odds by so much. */
export const MATTERS = constants.explain.matters;
const TELL_NOTHING = new Set(constants.explain.tellNothing);
const WORDS = compile(String.raw`[^\W_]+(?:['’.-][^\W_]+)*`, "g");
const GAP = compile(String.raw`\s+`, "g");

/** Natural log odds of a probability, cut off at one in a million. */
export function logOdds(p) {
  const inside = Math.min(Math.max(p, 1e-6), 1 - 1e-6);
  return Math.log(inside / (1 - inside));
}

/** Words of a text that can tell something, as `[begin, end]`, or runs of as many where there are more than `most`. */
export function spansOf(text, most = MOST_PASSES) {
  const all = Array.from(text.matchAll(WORDS), (match) => [match.index, match.index + match[0].length]);
  const telling = all.filter(([begin, end]) => !TELL_NOTHING.has(text.slice(begin, end).toLowerCase()));
  const words = telling.length ? telling : all;
  const size = words.length ? Math.ceil(words.length / most) : 1;
  const spans = [];
  for (let at = 0; at < words.length; at += size) {
    spans.push([words[at][0], words[Math.min(at + size, words.length) - 1][1]]);
  }
  return spans;
}

/** The text with the spans left out. */
export function without(text, spans) {
  let left = text;
  for (const [begin, end] of [...spans].sort((a, b) => b[0] - a[0])) left = left.slice(0, begin) + left.slice(end);
  return strip(left.replace(GAP, " "));
}

/**
 * Effect of every span of a text on one condition: `{begin, end, effect}`.
 *
 * @param {(text: string) => Promise<{probabilities: ArrayLike<number>}>} judge how sure the model is of a text
 * @param {number | null} condition its place in the bundle (from 0); by default the likeliest
 * @param {string} context the whole that the model reads, with `{}` where the text stands in it
 * @param {(share: number) => void} progress called with 0–1 after every pass
 */
export async function whichWords(judge, text, condition = null, context = "{}", progress = () => {}) {
  const within = (part) => context.replace("{}", () => part);
  const whole = (await judge(within(text))).probabilities;
  let at = condition === null ? 1 : condition + 1;
  if (condition === null) for (let k = 2; k < whole.length; k += 1) if (whole[k] > whole[at]) at = k;
  const base = logOdds(whole[at]);
  const found = [];
  const spans = spansOf(text);
  for (const [begin, end] of spans) {
    const rest = within(without(text, [[begin, end]]));
    const left = strip(rest) ? logOdds((await judge(rest)).probabilities[at]) : logOdds(1 / whole.length);
    found.push({ begin, end, effect: round(base - left, 4) });
    progress(found.length / spans.length);
  }
  return found;
}
