/**
 * How far a denial or a mark of the past reaches in a clause, and the form under which words are compared. Port of
 * the functions of `symptomchat/runtime/triage.py` that findings and red flags share.
 *
 * In: words of `wordsOf`. Out: whether what stands at a place is denied, or over.
 */

import constants from "../constants.js";

const { farReaching: FAR_REACHING } = constants;
const [NEGATIONS, RESET] = ["negations", "reset"].map((name) => new Set(constants[name]));
// These see words of `wordsOf` alone, which hold no letters beyond a to z.
const [PAST, NOW] = ["past", "now"].map((name) => new RegExp(constants[name], "g"));
const NOSE = new RegExp(constants.nose);
/** Marks that end a clause. */
export const STOPS = ".;!?\n";

/** A word without a plural's ending, or with the ending of a verb as one mark. */
export function form(word) {
  if (word.endsWith("ies") && word.length > 4) return `${word.slice(0, -3)}y`;
  // "chokin" is "choking".
  for (const ending of ["ing", "in", "ed"]) {
    if (word.endsWith(ending) && word.length - ending.length >= 4) return `${word.slice(0, -ending.length)}~`;
  }
  return word.replace(/s+$/, "");
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
export function negated(words, commas, at) {
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
export function past(words, at) {
  const [begin, end] = clauseOf(words, at);
  if (NOSE.test(words.slice(begin, end).join(" "))) return true;
  const over = marksOf(PAST, words, begin, end).filter(([first]) => {
    const near = words.slice(Math.max(begin, first - 3), first + 1);
    return !near.includes("since") && !near.includes("for");
  });
  return over.length > 0 && distanceTo(over, at) < distanceTo(marksOf(NOW, words, begin, end), at);
}
