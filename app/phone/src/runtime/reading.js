/**
 * What kind of message a person sent in a conversation, from its words alone. Port of `symptomchat/runtime/reading.py`.
 *
 * In: one message. Out: its kind (a question about a condition, a new topic, a correction, a follow-up, an answer to a
 * question) and, for a correction, the statements as they read afterwards. Nothing here asks the model.
 */

import constants from "../constants.js";
import { askedName } from "./assistant.js";
import { lower, stem } from "./findings.js";
import { normal } from "./grounding.js";
import { compile, split, strip, stripOf } from "./python.js";

const given = constants.reading;
const NEW_TOPIC = compile(given.newTopic, "i");
const FOLLOW_UP = compile(given.followUp, "i");
const CORRECTION = compile(given.correction, "i");
const DENIED = compile(given.denied, "i");
const DENIED_VERB = compile(given.deniedVerb, "i");
const QUESTION = compile(given.question, "i");
const TREATED = compile(given.treated, "i");
const SHOWN = compile(given.shown, "i");
const URGENT = compile(given.urgent, "i");
const [EMPTY, BARE] = [given.empty, given.bare].map((list) => new Set(list));
const OPPOSITES = new Map(Object.entries(given.opposites));
const NOT_A_NAME = new Set(constants.notAName);
const python = String.raw;
const REPLIES = given.replies.map(([value, words]) => [
  value,
  compile(python`^\W*(?:${words})(?!['’\w])(?:\s*(?:[,.;:!?–-]\s*|$)|\s+(?=(?:and|but|i|it)\b))`, "i"),
]);
const LINK = compile(python`^\W*(?:and|but)\b\W*`, "i");
const A_WORD = compile(python`\w`);
const PERSONAL = compile(python`\b(?:i|i'm|i've|my|me|he|she|his|her)\b`, "i");
const ASKING = compile(python`\b(?:do|if|have|told|said|would|should|can) i\b`, "i");
const WORDS = compile(python`[^\W_]+(?:'[^\W_]+)*`, "g");
const WORDS_AS_TYPED = compile(python`[^\W_]+(?:['’][^\W_]+)*`, "g");
const PIECES = compile(python`(\s*[,;.]\s*|\s+(?:and|but|with|or)\s+)`);
const LEFTOVER = compile(python`^\W*(?:but|and|it'?s|it is|rather)\b\W*`, "i");
const GAP = compile(python`\s+`, "g");
const DIGITS = /^\p{Nd}+$/u;

/** Whether a text holds any word. */
export function saysAnything(text) {
  return A_WORD.test(text);
}

/** Whether a message begins with yes, no or not sure, as a word of its own: `{value, rest}`, or null. */
export function readReply(text) {
  for (const [value, pattern] of REPLIES) {
    const match = pattern.exec(text);
    if (match) {
      const rest = strip(text.slice(match[0].length)).replace(LINK, "");
      return { value, rest: saysAnything(rest) ? rest : "" };
    }
  }
  return null;
}

/** What follows explicit words for a new topic (it may be empty), or null where there are none. */
export function newTopic(text) {
  const match = NEW_TOPIC.exec(text);
  return match ? strip(text.slice(match[0].length)) : null;
}

/**
 * Whether a message asks about a condition or a treatment instead of describing a case.
 *
 * A message in the first person that names findings outside the name asked for describes a case as well.
 */
export function asksAbout(text, findings) {
  const name = askedName(text);
  if (name === null || split(normal(name)).some((word) => NOT_A_NAME.has(word))) return false;
  const begin = text.indexOf(name);
  const outside = `${text.slice(0, begin)} . ${text.slice(begin + name.length)}`;
  const personal = PERSONAL.test(outside);
  // "have I got", "do I have" and "told I have" are first persons that only ask.
  const asking = ASKING.test(outside);
  if (personal && findings.mentions(outside).some((mention) => mention.present)) return false;
  return asks(text) || asking || !personal;
}

/**
 * The question that "how is it treated?" means where `first` is the likeliest condition of the case: a question by
 * name; the empty string for a question about how urgent the case is; or null.
 */
export function aboutTheCase(text, findings, first) {
  if (!asks(text) || (askedName(text) && asksAbout(text, findings))) return null;
  if (findings.mentions(text).some((mention) => mention.present)) return null;
  if (URGENT.test(text)) return "";
  if (TREATED.test(text)) return `How is ${first} treated?`;
  if (SHOWN.test(text)) return `What are the symptoms of ${first}?`;
  return null;
}

/** Whether a message has the form of a question. */
export function asks(text) {
  return QUESTION.test(text);
}

/** Whether a message takes something back. */
export function isCorrection(text) {
  return CORRECTION.test(text);
}

/** Whether a message begins or ends as something added does. */
export function isFollowUp(text) {
  return FOLLOW_UP.test(text);
}

/** Lower-case words, with apostrophes. */
export function words(text) {
  return lower(text).match(WORDS) ?? [];
}

/**
 * The statements of a case after a correction.
 *
 * What the correction denies is cut out of them, or replaced where the message names the opposite ("left" by "right",
 * "3" by "5"); whatever else it says is added.
 */
export function correct(statements, text) {
  const match = CORRECTION.exec(text);
  const body = match ? strip(text.slice(match[0].length)) : text;
  const verb = DENIED_VERB.exec(body);
  const denied = verb ?? DENIED.exec(body);
  const wrong = denied ? denied[1] : "";
  const right = denied ? `${body.slice(0, denied.index)} ${body.slice(denied.index + denied[0].length)}` : body;
  const swaps = swapsOf(statements, wrong, right);
  if (swaps.size) {
    const changed = statements.map((statement) => swap(statement, swaps));
    const put = new Set(swaps.values());
    const known = new Set(changed.flatMap(words).map(stem));
    const told = [...meaning(right)].every((word) => put.has(word) || known.has(stem(word)));
    return told ? changed : [...changed, tidy(right)];
  }
  const changed = wrong ? statements.map((statement) => cut(statement, wrong, verb !== null)) : statements;
  if (changed.every((statement, at) => statement === statements[at])) return [...statements, body];
  const added = meaning(right).size ? [tidy(right)] : [];
  return [...changed.filter((statement) => meaning(statement).size), ...added];
}

function meaning(text) {
  return new Set(words(text).filter((word) => !EMPTY.has(word)));
}

/** Word → its replacement, where a correction names a word's opposite or another number. */
function swapsOf(statements, wrong, right) {
  const said = new Set(statements.flatMap(words));
  const [denied, stated] = [words(wrong), words(right)];
  const swaps = new Map();
  for (const word of stated) {
    for (const other of OPPOSITES.get(word) ?? []) {
      const meant = !denied.length || denied.includes(other);
      if (said.has(other) && !stated.includes(other) && meant) swaps.set(other, word);
    }
  }
  const numbers = stated.filter((word) => DIGITS.test(word));
  if (numbers.length !== 1) return swaps;
  for (const word of denied) if (DIGITS.test(word) && said.has(word)) swaps.set(word, numbers[0]);
  if (!denied.length) {
    // "actually 5 days" where "for 3 days" was said: the same unit, another number.
    const unit = compile(python`\b${numbers[0]}\s+([a-z]+)`).exec(lower(right));
    if (unit) {
      const pattern = compile(python`\b(\d+)\s+${stem(unit[1])}s?\b`, "g");
      const earlier = new Set(Array.from(lower(statements.join(" . ")).matchAll(pattern), (found) => found[1]));
      const [number] = earlier;
      if (earlier.size === 1 && number !== numbers[0]) swaps.set(number, numbers[0]);
    }
  }
  return swaps;
}

function swap(statement, swaps) {
  const either = [...swaps.keys()].map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  return statement.replace(compile(python`\b(${either})\b`, "gi"), (found) => swaps.get(found.toLowerCase()) ?? found);
}

/** The statement without what a correction denies; its clause goes where asked, or where it then says nothing. */
function cut(statement, wrong, clause) {
  const gone = new Set([...meaning(wrong)].map(stem));
  const sided = new Set([...gone].filter((word) => OPPOSITES.has(word)));
  const within = (stems) => [...gone].every((word) => stems.has(word));
  if (!gone.size || !within(new Set(words(statement).map(stem)))) return statement;
  const pieces = statement.split(PIECES);
  const kept = [];
  for (let at = 0; at < pieces.length; at += 2) {
    let piece = pieces[at];
    const stems = new Set(words(piece).map(stem));
    if (within(stems)) {
      if (clause) continue;
      const more = [...stems].some((word) => !gone.has(word) && !EMPTY.has(word));
      const onlySide = sided.size > 0 && more;
      piece = less(piece, onlySide ? sided : gone);
      if ([...meaning(piece)].every((word) => !onlySide && BARE.has(word))) continue;
    }
    kept.push(kept.length && at ? pieces[at - 1] : "", piece);
  }
  return stripOf(kept.join("").replace(GAP, " "), " ,;");
}

/** A text without the words of these stems. */
function less(text, stems) {
  return text.replace(WORDS_AS_TYPED, (word) => (stems.has(stem(lower(word))) ? "" : word));
}

function tidy(text) {
  return stripOf(strip(text).replace(LEFTOVER, "").replace(GAP, " "), " ,;.–\\-");
}
