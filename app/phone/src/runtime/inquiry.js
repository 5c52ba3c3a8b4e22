/**
 * The next best question: which finding, asked now, tells the likely conditions apart most. Port of
 * `symptomchat/runtime/inquiry.py`.
 *
 * In: the model's probabilities of the conditions and what was answered so far. Out: the question with the highest
 * expected information gain under the profiles of the knowledge base, or none where asking on would not help; and the
 * evidence of the answers as logarithms of likelihood ratios, which the ranking is weighed with.
 */

import constants from "../constants.js";
import { Findings, MOST_FREQUENT, Profiles, waysOf } from "./findings.js";
import { round, split } from "./python.js";

export const { yes: YES, no: NO, unsure: UNSURE, mostQuestions: MOST_QUESTIONS } = constants.inquiry;
export const ANSWERS = constants.inquiry.answers;
const { sure: SURE, leastGain: LEAST_GAIN, considered: CONSIDERED } = constants.inquiry;
const { yesWeight: YES_WEIGHT, expertWeight: EXPERT_WEIGHT, asked: ASKED } = constants.inquiry;
const NEGATIONS = new Set(constants.negations);

/** What is asked; a form that fits any finding, a noun, a clause or an adjective. */
export function textOf({ finding }) {
  return ASKED.replace("{}", () => finding);
}

/** Shannon entropy in bits of a distribution, given as parts of a total. */
function entropy(parts, total = 1) {
  let sum = 0;
  for (const part of parts) {
    const p = part / Math.max(total, 1e-12);
    sum -= p * Math.log2(Math.max(p, 1e-12));
  }
  return sum;
}

/**
 * Expected information gain in bits of asking for each finding (Lindley 1956), never below zero.
 *
 * @param {ArrayLike<number>} prior `[K]`, probabilities of the conditions, summing to one
 * @param {ArrayLike<number>[]} likelihood `[K][F]`, probability of a yes in each condition
 */
export function informationGain(prior, likelihood) {
  const before = entropy(prior);
  const columns = likelihood.length ? likelihood[0].length : 0;
  return Float64Array.from({ length: columns }, (_, at) => {
    const yes = likelihood.map((row, k) => prior[k] * row[at]);
    const no = likelihood.map((row, k) => prior[k] * (1 - row[at]));
    const after = [yes, no].reduce((sum, joint) => {
      const total = joint.reduce((a, b) => a + b, 0);
      return sum + total * entropy(joint, total);
    }, 0);
    return Math.max(before - after, 0);
  });
}

/** Places of values, the highest first; equal ones stay in order. */
export function descending(values) {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
}

/** Chooses questions and weighs their answers over the knowledge of one bundle. */
export class Inquiry {
  #askable;
  #weight;

  constructor(conditions, phrasings) {
    this.profiles = new Profiles(conditions);
    this.findings = new Findings(this.profiles.names, phrasings);
    this.phrasings = phrasings;
    // A yes or no to a negative ("no fever") is read in two ways, so negatives are not asked for.
    this.#askable = this.profiles.names.map((name) => !split(name.toLowerCase()).some((word) => NEGATIONS.has(word)));
    this.#weight = this.profiles.names.map((name) => (waysOf(phrasings, name).length ? 1 : EXPERT_WEIGHT));
  }

  /**
   * Logarithms of the likelihood ratios `[C]` of all answers against the background, none first.
   *
   * A "not sure" says nothing; null where nothing was answered. `replies` is a `Map` of findings to answers.
   */
  evidence(replies) {
    const total = new Float64Array(this.profiles.conditions + 1);
    let counted = false;
    for (const [finding, value] of replies) {
      if (value === UNSURE || !this.profiles.number.has(finding)) continue;
      counted = true;
      const background = Math.min(this.profiles.background[this.profiles.number.get(finding)], MOST_FREQUENT);
      this.profiles.of(finding).forEach((here, at) => {
        total[at + 1] +=
          value === YES ? YES_WEIGHT * Math.log(here / background) : Math.log((1 - here) / (1 - background));
      });
    }
    return counted ? total : null;
  }

  /**
   * The question to ask now, `{finding, ways, gain}`, or null where one condition is sure enough, too much was asked,
   * or no question would help.
   *
   * @param {ArrayLike<number>} probabilities `[C]`, calibrated, the first that of none; answers included
   * @param {Map<string, boolean>} known findings that were said to be present or absent
   * @param {Iterable<string>} asked findings that were asked for already
   */
  next(probabilities, known, asked) {
    const before = new Set(asked);
    if (before.size >= MOST_QUESTIONS) return null;
    const conditions = Float64Array.from(probabilities).subarray(1);
    const rows = descending(conditions).slice(0, CONSIDERED);
    const mass = rows.reduce((sum, row) => sum + conditions[row], 0);
    const prior = rows.map((row) => conditions[row] / mass);
    if (prior[0] >= SURE) return null;
    const { values, columns } = this.profiles.table(rows);
    const gain = informationGain(prior, values);
    for (const at of descending(gain.map((bits, k) => bits * this.#weight[columns[k]]))) {
      const name = this.profiles.names[columns[at]];
      if (gain[at] < LEAST_GAIN) return null;
      if (this.#askable[columns[at]] && !before.has(name) && this.answerOf(name, known) === null) {
        return { finding: name, ways: waysOf(this.phrasings, name).slice(0, 2), gain: round(gain[at], 4) };
      }
    }
    return null;
  }

  /** What is known of a finding: said outright, or implied ("fever" by a high one, no high one by no fever). */
  answerOf(name, known) {
    if (known.has(name)) return known.get(name);
    const number = this.profiles.number.get(name);
    for (const [other, present] of known) {
      const place = this.profiles.number.get(other);
      if (place === undefined) continue;
      if (present && this.profiles.wider[place].includes(number)) return true;
      if (!present && this.profiles.wider[number].includes(place)) return false;
    }
    return null;
  }
}
