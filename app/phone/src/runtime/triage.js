/**
 * Red flags and urgency: rules that stand above whatever the model thinks. Port of `symptomchat/runtime/triage.py`.
 *
 * In: the user's words. Out: the red flags that fire.
 */

import constants from "../constants.js";
import { WORD } from "./python.js";

const { window: WINDOW, order: ORDER, enough: ENOUGH, hypothetical: HYPOTHETICAL } = constants;
const { written: WRITTEN, farReaching: FAR_REACHING, afterwards: AFTERWARDS } = constants;
const [NEGATIONS, RESET, MANNER, SELF, LOOKS_ON] = ["negations", "reset", "manner", "self", "looksOn"].map(
  (name) => new Set(constants[name]),
);
// These see words of `wordsOf` alone, which hold no letters beyond a to z.
const [PAST, NOW, TOLD] = ["past", "now", "told"].map((name) => new RegExp(constants[name], "g"));
const NOSE = new RegExp(constants.nose);
const STOPS = ".;!?\n";
const SOMEONE = new RegExp(`(?<![${WORD}])(?:i|my|he|she|his|her)(?![${WORD}])`, "u");
const REMEMBERED = 65536;

/** Lower-case words; clause marks stay as `.`. */
export function wordsOf(text) {
  const found =
    text.toLowerCase().replaceAll("’", "'").match(/[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]/g) ?? [];
  return found.map((word) => (Object.hasOwn(WRITTEN, word) ? WRITTEN[word] : word));
}

const same = new Map();

/** Equal, a simple inflection, or misspelt by one (from five letters) or two (from eight) letters. */
export function sameWord(word, wanted) {
  const key = `${word}\0${wanted}`;
  const known = same.get(key);
  if (known !== undefined) return known;
  if (same.size >= REMEMBERED) same.clear();
  const result = compareWords(word, wanted);
  same.set(key, result);
  return result;
}

function compareWords(word, wanted) {
  if (sameInflected(word, wanted)) return true;
  let room = wanted.length >= 8 ? 2 : wanted.length >= 5 ? 1 : 0;
  // "neumonia" is a misspelling, "conscious" is the opposite.
  if (word.slice(0, 1) !== wanted.slice(0, 1)) room = wanted.length >= 8 ? Math.min(room, 1) : 0;
  if (!room || Math.abs(word.length - wanted.length) > room) return false;
  return distance(word, wanted, room) <= room;
}

/** Equal but for a plural's ending, or two endings of one verb ("vomited" and "vomiting"). */
export function sameInflected(word, wanted) {
  return word === wanted || (word.length > 3 && form(word) === form(wanted));
}

function form(word) {
  if (word.endsWith("ies") && word.length > 4) return `${word.slice(0, -3)}y`;
  // "chokin" is "choking".
  for (const ending of ["ing", "in", "ed"]) {
    if (word.endsWith(ending) && word.length - ending.length >= 4) return `${word.slice(0, -ending.length)}~`;
  }
  return word.replace(/s+$/, "");
}

/** Optimal string alignment distance, cut off above `most`. */
function distance(a, b, most) {
  let before = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const older = before;
    before = row;
    row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      let cost = Math.min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, older[j - 2] + 1);
      row.push(cost);
    }
    if (Math.min(...row) > most) return most + 1;
  }
  return row[row.length - 1];
}

/** `sameWord`, and short words misspelt by one letter: "hed", "fase", "blud". */
function readAs(word, wanted) {
  if (sameWord(word, wanted)) return true;
  const short = wanted.length === 4 && word.length >= 3 && word.length <= 5 && /^[a-z]+$/.test(wanted);
  return short && word[0] === wanted[0] && distance(word, wanted, 1) <= 1;
}

const phrases = new Map();

function wordsOfPhrase(phrase) {
  if (!phrases.has(phrase)) phrases.set(phrase, wordsOf(phrase));
  return phrases.get(phrase);
}

function placesOf(words, phrase, ordinary) {
  const wanted = wordsOfPhrase(phrase);
  const found = [];
  for (let at = 0; at + wanted.length <= words.length; at += 1) {
    const here = wanted.every((want, k) => (ordinary.has(words[at + k]) ? sameInflected : readAs)(words[at + k], want));
    if (here) found.push(at);
  }
  return found;
}

/** Places in `wordsOf(text)` before which a comma stands. */
export function commasOf(text) {
  const pieces =
    text.toLowerCase().replaceAll("’", "'").match(/,|[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]/g) ?? [];
  const found = new Set();
  let at = 0;
  for (const piece of pieces) {
    if (piece === ",") found.add(at);
    else at += 1;
  }
  return found;
}

const ends = (word) => STOPS.includes(word) || RESET.has(word);

function commaBetween(commas, back, at) {
  return [...commas].some((comma) => back < comma && comma <= at);
}

/**
 * Whether a negation reaches this place: up to four words before it in the same clause.
 *
 * "no tears, diarrhea" denies the tears alone; "no tears, diarrhea or fever" denies all three.
 */
function negated(words, commas, at) {
  for (let back = at - 1; back > Math.max(-1, at - 5); back -= 1) {
    if (ends(words[back])) return false;
    if (NEGATIONS.has(words[back])) {
      return commaBetween(commas, back, at) ? listsAlternatives(words, back) : true;
    }
  }
  // "denies fever, weight loss, chest pain": a clinical negation reaches to the end of its sentence, and so does
  // "no swelling of the lids, change of vision or neck stiffness".
  for (let back = at - 1; back > Math.max(-1, at - 14); back -= 1) {
    if (ends(words[back])) return false;
    if (FAR_REACHING.includes(words[back])) return true;
    if (["no", "nor"].includes(words[back]) && commaBetween(commas, back, at)) return listsAlternatives(words, back);
  }
  return false;
}

/** Whether an "or" stands between a place and the end of its clause: then a negation denies the whole list. */
function listsAlternatives(words, begin) {
  for (const word of words.slice(begin)) {
    if (ends(word)) return false;
    if (word === "or" || word === "nor") return true;
  }
  return false;
}

/** Begin and end (exclusive) of the clause that holds a place. */
function clauseOf(words, at) {
  let begin = at;
  let end = at;
  while (begin > 0 && !ends(words[begin - 1])) begin -= 1;
  while (end < words.length && !ends(words[end])) end += 1;
  return [begin, end];
}

/** First word and last word (exclusive) of every mark in a clause. */
function marksOf(pattern, words, begin, end) {
  const clause = words.slice(begin, end).join(" ");
  const spaces = (text) => text.split(" ").length - 1;
  return Array.from(clause.matchAll(pattern), (match) => [
    begin + spaces(clause.slice(0, match.index)),
    begin + spaces(clause.slice(0, match.index + match[0].length)) + 1,
  ]);
}

/** Words from a place to the nearest mark; a large number where there is none. */
function distanceTo(marks, at) {
  if (!marks.length) return 999;
  return Math.min(...marks.map(([first, last]) => (at < first ? first - at : Math.max(0, at - last + 1))));
}

/**
 * Whether what stands at a place is over (or of the nose alone).
 *
 * A mark of the past after "since" or "for" tells how long it has lasted.
 */
function past(words, at) {
  const [begin, end] = clauseOf(words, at);
  if (NOSE.test(words.slice(begin, end).join(" "))) return true;
  const over = marksOf(PAST, words, begin, end).filter(([first]) => {
    const near = words.slice(Math.max(begin, first - 3), first + 1);
    return !near.includes("since") && !near.includes("for");
  });
  return over.length > 0 && distanceTo(over, at) < distanceTo(marksOf(NOW, words, begin, end), at);
}

/** Whether what stands at a place happens in a story: nobody here is named between its mark and the place. */
function told(words, at, length) {
  const [begin, end] = clauseOf(words, at);
  return marksOf(TOLD, words, begin, end).some(([first, last]) => {
    const between = first <= at ? words.slice(last, at + length) : words.slice(at, first);
    return !between.some((word, k) => SELF.has(word) && !LOOKS_ON.has(between[k + 1] ?? ""));
  });
}

/** Whether the clause ends in a denial, or the denial within a phrase is of how and not of whether. */
function deniedAfterwards(words, at, length) {
  const [, end] = clauseOf(words, at);
  const rest = words.slice(at + length, end).join(" ");
  if (AFTERWARDS.some((mark) => rest === mark || rest.endsWith(` ${mark}`))) return true;
  const held = words.slice(at, at + length).some((word) => ["not", "won't", "can't", "never"].includes(word));
  return held && at + length < end && MANNER.has(words[at + length]);
}

/** The rules of a bundle; `ordinary` words (the whole words of its vocabulary) are no misspelling of others. */
export class RedFlags {
  constructor(rules, ordinary = new Set()) {
    this.rules = rules;
    this.ordinary = ordinary;
  }

  /** Red flags in a text, `{id, name, advice}`, in the order of the rules. */
  check(text) {
    const words = wordsOf(text);
    const commas = commasOf(text);
    const lower = text.toLowerCase();
    const asks = HYPOTHETICAL.some((mark) => lower.includes(mark)) && !SOMEONE.test(lower);
    if (asks || !words.length) return [];
    const found = new Map();
    const places = (phrase) => {
      if (!found.has(phrase)) {
        const { length } = wordsOfPhrase(phrase);
        found.set(
          phrase,
          placesOf(words, phrase, this.ordinary).filter(
            (at) =>
              !negated(words, commas, at) &&
              !past(words, at) &&
              !told(words, at, length) &&
              !deniedAfterwards(words, at, length),
          ),
        );
      }
      return found.get(phrase);
    };
    return this.rules
      .filter((rule) => rule.patterns.some((pattern) => matches(pattern.map((group) => group.flatMap(places)))))
      .map(({ id, name, advice }) => ({ id, name, advice }));
  }
}

/** Whether every group has a place within `WINDOW` words of one place of the first group. */
function matches(groups) {
  if (!groups.every((group) => group.length)) return false;
  return groups[0].some((first) =>
    groups.slice(1).every((group) => group.some((at) => Math.abs(at - first) <= WINDOW)));
}

/** The more urgent of two urgencies. */
export function moreUrgent(a, b) {
  return ORDER.indexOf(a) >= ORDER.indexOf(b) ? a : b;
}

/**
 * Urgency of an answer, erring to the safe side.
 *
 * @param {[string, number][]} ranked urgency and probability of the conditions
 * @param {object[]} fired red flags
 * @param {boolean} answered whether a condition was recognised at all
 */
export function urgency(ranked, fired, answered, alarmed = false) {
  if (fired.length || alarmed) return "emergency";
  if (!answered) return "unknown";
  const mass = Object.fromEntries(
    ORDER.map((name) => [name, ranked.reduce((sum, [level, p]) => (level === name ? sum + p : sum), 0)]),
  );
  if (mass.emergency >= ENOUGH) return "emergency";
  const first = ranked.length ? ranked[0][0] : "unknown";
  return moreUrgent(first, mass.see_doctor + mass.emergency >= ENOUGH ? "see_doctor" : "unknown");
}
