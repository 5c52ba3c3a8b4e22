/**
 * Findings in free text, and how often each condition shows them. Port of `symptomchat/runtime/findings.py`.
 *
 * In: the user's words, and the conditions and phrasings of a bundle. Out: mentions of findings, each present or
 * denied, with its place; and for every condition the probability of each finding. Nothing here asks the model.
 */

import constants from "../constants.js";
import { STOPS, form, negated, past } from "./clauses.js";
import { content, normal } from "./grounding.js";
import { split } from "./python.js";
import { commasOf } from "./triage.js";

const { word, firstRank: FIRST_RANK, lastRank: LAST_RANK, background: BACKGROUND } = constants.findings;
export const { mostFrequent: MOST_FREQUENT, leastFrequent: LEAST_FREQUENT } = constants.findings;
const WORD = new RegExp(word, "g");
/** Words that a phrasing may hold or lack without another meaning: "pain in my neck" is "pain in the neck". */
export const FILLERS = new Set(constants.findings.fillers);
const NO_IMPLICATION = new Set(constants.findings.noImplication);
const [NEGATIONS, RESET] = ["negations", "reset"].map((name) => new Set(constants[name]));

/** Form under which words are compared: plurals and the endings of a verb do not count. */
export function stem(text) {
  return [...text].length > 3 ? form(text) : text;
}

/** Lower case with plain apostrophes, letter for letter, so that places stay where they were. */
export function lower(text) {
  return Array.from(text, (char) => String.fromCodePoint(char.toLowerCase().codePointAt(0))).join("").replaceAll("’", "'");
}

/** Whether "denies" stands before a place in its sentence: it reaches over a whole list, commas and all. */
export function clinicalDenial(words, at) {
  for (let back = at - 1; back >= Math.max(0, at - 20); back -= 1) {
    if (STOPS.includes(words[back]) || RESET.has(words[back])) return false;
    if (["denies", "denied", "denying"].includes(words[back])) return true;
  }
  return false;
}

/** Recognises findings by their names and phrasings, the longest match first. */
export class Findings {
  /** First word → further words → finding. */
  #ways = new Map();

  constructor(names, phrasings) {
    const known = [...new Set(names)];
    for (const name of known) this.#add(name, name);
    // A name wins over a phrasing, an earlier phrasing over a later one.
    for (const name of known) for (const way of waysOf(phrasings, name)) this.#add(way, name);
    for (const here of this.#ways.values()) here.lengths = [...new Set(here.lengths)].sort((a, b) => b - a);
  }

  #add(way, name) {
    const words = (lower(way).match(WORD) ?? []).filter((w) => !FILLERS.has(w) && !STOPS.includes(w)).map(stem);
    if (!words.length || (words.length === 1 && words[0].length <= 2)) return;
    if (!this.#ways.has(words[0])) this.#ways.set(words[0], { names: new Map(), lengths: [] });
    const { names, lengths } = this.#ways.get(words[0]);
    const key = words.join(" ");
    if (names.has(key)) return;
    names.set(key, name);
    lengths.push(words.length);
  }

  /** Every finding that a text names, `{finding, present, begin, end}` in its order, without what is long past. */
  mentions(text) {
    const small = lower(text);
    const places = Array.from(small.matchAll(WORD), (match) => [match.index, match.index + match[0].length]);
    const words = places.map(([begin, end]) => small.slice(begin, end));
    const commas = commasOf(small);
    const kept = [...words.keys()].filter((at) => !FILLERS.has(words[at]));
    const stems = kept.map((at) => stem(words[at]));
    const found = [];
    let at = 0;
    while (at < kept.length) {
      const [length, name] = this.#longest(stems, at);
      if (name !== null) {
        const first = kept[at];
        const last = kept[at + length - 1];
        if (!past(words, first)) {
          const denied = negated(words, commas, first) || clinicalDenial(words, first);
          found.push({ finding: name, present: !denied, begin: places[first][0], end: places[last][1] });
        }
      }
      // "no fever" is a finding of its own and denies fever: the words after the "no" are read again.
      at += NEGATIONS.has(words[kept[at]]) ? 1 : Math.max(1, length);
    }
    return found;
  }

  /** Number of words and the finding of the longest way to say one that begins here. */
  #longest(stems, at) {
    const here = this.#ways.get(stems[at]);
    for (const length of here?.lengths ?? []) {
      if (at + length > stems.length) continue;
      const name = here.names.get(stems.slice(at, at + length).join(" "));
      if (name !== undefined) return [length, name];
    }
    return [0, null];
  }

  /** Finding → present, as a `Map`; a finding that is named both ways counts as present. */
  recognise(text) {
    const found = new Map();
    for (const { finding, present } of this.mentions(text)) {
      found.set(finding, (found.get(finding) ?? false) || present);
    }
    return found;
  }
}

/** Other ways to say a finding. */
export function waysOf(phrasings, name) {
  return Object.hasOwn(phrasings, name) ? phrasings[name] : [];
}

/**
 * How often a condition shows each of its findings, 0–1, aligned with its `symptoms`.
 *
 * An older bundle ranks the findings without a frequency: they then fall evenly from the first to the last.
 */
export function frequencies({ symptoms, frequencies: given }) {
  if (given && given.length === symptoms.length) return given.map((share) => share / 100);
  const step = (FIRST_RANK - LAST_RANK) / Math.max(1, symptoms.length - 1);
  return symptoms.map((_, at) => FIRST_RANK - step * at);
}

/** For every finding the wider ones that it implies: "dry cough" implies "cough" ("no cough" does not). */
export function implied(names) {
  const words = names.map(content);
  const holders = new Map();
  words.forEach((own, at) => {
    for (const held of own) {
      if (!holders.has(held)) holders.set(held, new Set());
      holders.get(held).add(at);
    }
  });
  const limited = names.map((name) => split(normal(name)).some((part) => NO_IMPLICATION.has(part)));
  const wider = names.map(() => []);
  words.forEach((own, at) => {
    if (!own.size || [...own].some((part) => NO_IMPLICATION.has(part))) return;
    const [first, ...others] = [...own].map((part) => holders.get(part));
    for (const narrow of first) {
      const holds = words[narrow].size > own.size && others.every((holder) => holder.has(narrow));
      if (narrow !== at && holds && !limited[narrow]) wider[narrow].push(at);
    }
  });
  return wider;
}

/**
 * Probability of each finding in each condition.
 *
 * `names` are all findings in a fixed order, `number` the place of each among them, `wider` the numbers of those that
 * each implies, `background` `[F]` the share of people with a finding whose condition does not list it.
 */
export class Profiles {
  #listed;

  constructor(conditions) {
    this.names = [...new Set(conditions.flatMap((condition) => condition.symptoms))];
    this.number = new Map(this.names.map((name, at) => [name, at]));
    this.wider = implied(this.names);
    this.conditions = conditions.length;
    this.background = new Float64Array(this.names.length);
    this.#listed = conditions.map((condition) => this.#profile(condition));
    for (const own of this.#listed) for (const [number, share] of own) this.background[number] += share;
    this.background = this.background.map((total) => BACKGROUND + total / Math.max(1, conditions.length));
  }

  #profile(condition) {
    const own = new Map();
    const shares = frequencies(condition);
    condition.symptoms.forEach((name, at) => {
      // Who has a dry cough has a cough: a profile that lists the one shows the other as often.
      const number = this.number.get(name);
      for (const known of [number, ...this.wider[number]]) own.set(known, Math.max(own.get(known) ?? 0, shares[at]));
    });
    for (const [number, share] of own) own.set(number, Math.min(Math.max(share, LEAST_FREQUENT), MOST_FREQUENT));
    return own;
  }

  /** Probabilities of the findings that these conditions list, one row each, and the numbers of the findings. */
  table(rows) {
    const columns = [...new Set(rows.flatMap((row) => [...this.#listed[row].keys()]))].sort((a, b) => a - b);
    // Where a finding is so common that its background is higher, the profile's own figure stands.
    const values = rows.map((row) =>
      Float64Array.from(columns, (number) => this.#listed[row].get(number) ?? this.background[number]));
    return { values, columns };
  }

  /** Probability `[C]` of one finding in each condition. */
  of(finding) {
    const number = this.number.get(finding);
    return Float64Array.from(this.#listed, (own) => own.get(number) ?? this.background[number]);
  }
}
