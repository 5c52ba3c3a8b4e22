/**
 * What in a text is the patient's, and is now: the clauses that the ranking reads. Port of
 * `symptomchat/runtime/patient.py`, which says what stays and why.
 *
 * In: the user's words. Out: the same words without what somebody else has and without what is long over.
 */

import constants from "../constants.js";
import { lower, stem } from "./findings.js";
import { normal } from "./grounding.js";
import { compile, split, strip } from "./python.js";

const { shortestWord: SHORTEST_WORD, shortNames: SHORT_NAMES, enoughTold: ENOUGH_TOLD, early: EARLY, patterns } = constants.patient;
const TRAILING = compile(constants.patient.trailing);
const [SOMEBODY, STRANGER, CARED_FOR, ANYONE, FIRST, SINGULAR, BEING, WORRY, REPORT, THIRD, OVER, ENDED, LASTS, COUNTS] = [
  "somebody", "stranger", "caredFor", "anyone", "first", "singular", "being", "worry", "report", "third", "over", "ended", "lasts",
  "counts",
].map((name) => compile(patterns[name]));
const [CUT, PLACE] = ["cut", "place"].map((name) => compile(patterns[name], "g"));
const LETTER = compile("\\w");

const telling = (text) => split(normal(text)).filter((word) => word.length >= SHORTEST_WORD);

/** Clauses of a text in lower case, each with the mark or word that ends it, and their places in code units. */
function clausesOf(low) {
  const ends = [...Array.from(low.matchAll(CUT), (match) => match.index + match[0].length), low.length];
  const found = [];
  let begin = 0;
  for (const end of ends) {
    const text = low.slice(begin, end);
    if (!LETTER.test(text)) continue;
    found.push({ begin, end, text });
    begin = end;
  }
  return found;
}

/** Tells the patient's own clauses from others. */
export class Patient {
  constructor(findings, conditions, aliases) {
    const words = new Set(findings.flatMap(telling));
    this.stems = new Set(Array.from(words, stem));
    const single = aliases.filter((name) => !name.includes(" ") && name.length >= SHORTEST_WORD && !words.has(name));
    this.names = new Set([...conditions.map(normal), ...single, ...SHORT_NAMES]);
    this.longest = Math.max(0, ...Array.from(this.names, (name) => split(name).length));
  }

  /** The text that the ranking reads: the text itself, or what remains of it. */
  own(text) {
    const left = this.leftOut(text);
    if (!left.length) return text;
    // Places count letters, as in Python, and not code units.
    const letters = Array.from(text);
    let at = 0;
    let kept = "";
    for (const [begin, end] of left) {
      kept += letters.slice(at, begin).join("");
      at = end;
    }
    return strip(kept + letters.slice(at).join("")).replace(TRAILING, "");
  }

  /** Places, in letters, of the clauses that are another person's or over. */
  leftOut(text) {
    const low = lower(text);
    if (!FIRST.test(low)) return [];
    const clauses = clausesOf(low);
    if (clauses.length < 2) return [];
    const over = clauses.map(({ text: clause }, at) => at > 0 && this.#isOver(clause));
    const opened = SOMEBODY.test(clauses[0].text) || CARED_FOR.test(clauses[0].text);
    const own = !opened && clauses.some(({ text: clause }, at) => !over[at] && this.#isOwn(clause));
    // Where a text begins with somebody, that is the patient, and only strangers are told apart.
    const pattern = own ? SOMEBODY : STRANGER;
    if (!own && !clauses.some(({ text: clause }) => CARED_FOR.test(clause))) return [];
    const others = clauses.map(({ text: clause }, at) => at > 0 && this.#isSomebodys(clause, pattern));
    const gone = clauses.map((_, at) => others[at] || over[at]);
    // Something that can be ranked must remain.
    if (!clauses.some(({ text: clause }, at) => !gone[at] && this.#told(clause) > 0)) return [];
    const letters = (place) => Array.from(low.slice(0, place)).length;
    return clauses.filter((_, at) => gone[at]).map(({ begin, end }) => [letters(begin), letters(end)]);
  }

  /** Number of different words in a clause that stand in a finding's name. */
  #told(clause) {
    const words = new Set(telling(clause).map(stem));
    return [...words].filter((word) => this.stems.has(word)).length;
  }

  #isOwn(clause) {
    if (clause.includes("?") || !SINGULAR.test(clause) || THIRD.test(clause)) return false;
    if (WORRY.test(clause) || SOMEBODY.test(clause)) return false;
    if (ANYONE.test(clause) && !BEING.test(clause)) return false;
    return this.#told(clause) > 0;
  }

  #isSomebodys(clause, pattern) {
    const match = pattern.exec(clause);
    if (match === null || this.#told(clause) < ENOUGH_TOLD) return false;
    const rest = clause.slice(match.index + match[0].length).replace(PLACE, " ");
    if (FIRST.test(rest) || COUNTS.test(rest) || this.#namesCondition(rest)) return false;
    return !REPORT.test(rest) || THIRD.test(rest);
  }

  #isOver(clause) {
    const mark = OVER.exec(clause);
    if (mark === null || mark.index > EARLY || this.#told(clause) < ENOUGH_TOLD) return false;
    if (this.#namesCondition(clause)) return false;
    return ENDED.test(clause) || !LASTS.test(clause);
  }

  #namesCondition(clause) {
    const words = split(normal(clause));
    return words.some((_, begin) => {
      for (let length = 1; length <= Math.min(this.longest, words.length - begin); length += 1) {
        if (this.names.has(words.slice(begin, begin + length).join(" "))) return true;
      }
      return false;
    });
  }
}
