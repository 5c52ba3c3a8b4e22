/**
 * A conversation: what a person said in several messages becomes the text and the evidence of one question. Port of
 * `symptomchat/runtime/dialogue.py`.
 *
 * In: messages, and answers to the questions that the conversation asks. Out: turns, each with what was done with the
 * message and an answer. A case is what was said since the last new topic: follow-ups add to it, corrections change
 * it, questions about a condition leave it alone. A turn can be followed while it grows: what is urgent and the
 * ranking first, then the generated claims. No page, no storage, no clock: the whole state is `toJson`, which Python
 * reads too.
 */

import constants from "../constants.js";
import { SymptomChatError } from "../errors.js";
import { askedName, checkQuestion } from "./assistant.js";
import { Weighed } from "./evidence.js";
import { whichWords } from "./explain.js";
import { normal } from "./grounding.js";
import { ANSWERS, Inquiry, NO, UNSURE, YES, descending } from "./inquiry.js";
import { compile, strip } from "./python.js";
import * as reading from "./reading.js";

const { longestQuestion: LONGEST_QUESTION, shown: SHOWN, emergency: EMERGENCY } = constants;
const { shortened: SHORTENED, answersOnly: ANSWERS_ONLY } = constants.dialogue;
const ABOUT = compile(String.raw`^\W*(?:and |so )?(?:what|how) about (?:a |an |the )?(.+?)\W*$`, "i");
const A_WORD = compile(String.raw`[^\W_]+`, "g");

/** One message and what became of it; `kind` is case, follow_up, correction, new_topic, aside, reply or error. */
function turnOf(said, kind, { asked = "", answer = null, note = "", about = "" } = {}) {
  return { said, kind, asked, answer, note, about };
}

/** The state of one person's conversation. */
export class Conversation {
  /** `names` are those of the bundle's knowledge: every name of a condition → the one that it is shown by. */
  constructor(assistant, names) {
    this.assistant = assistant;
    this.inquiry = new Inquiry(assistant.conditions, assistant.phrasings);
    this.weighed = new Weighed(assistant);
    this.names = new Map(Object.entries(names));
    this.clear();
  }

  /** All that was said of the case, as one text that the model can take. */
  get case() {
    const told = [...this.replies].filter(([, value]) => value === YES).map(([finding]) => `Also: ${finding}`);
    const parts = [...this.statements, ...told].map(strip).filter((part) => part);
    const text = parts.map((part) => (/[.!?]$/.test(part) ? part : `${part}.`)).join(" ");
    const chars = [...text];
    if (chars.length <= LONGEST_QUESTION) return text;
    // The model reads the beginning and the end of a long text; the rules below read every statement.
    const head = Math.floor((LONGEST_QUESTION * 2) / 3);
    return `${chars.slice(0, head).join("")} ${chars.slice(head + 1 - LONGEST_QUESTION).join("")}`;
  }

  /** Findings that were said to be present or absent, answers included, as a `Map`. */
  get known() {
    const found = this.inquiry.findings.recognise(this.statements.join(" . "));
    for (const [name, value] of this.replies) if (value !== UNSURE) found.set(name, value === YES);
    return found;
  }

  /** Take one message; what cannot be used becomes a turn of kind error. */
  say(text) {
    return last(this.stream(text));
  }

  /**
   * Take one message and follow its turn while it grows; the last is what `say` returns.
   *
   * The turn stands among `turns` from the first on; the next question is chosen after the last.
   */
  async *stream(message) {
    let text;
    try {
      text = strip(checkQuestion(message));
    } catch (error) {
      if (!(error instanceof SymptomChatError)) throw error;
      const chars = [...String(message)];
      const shown = chars.slice(0, SHORTENED).join("") + (chars.length > SHORTENED ? "…" : "");
      yield this.#keep(turnOf(shown, "error", { note: error.message }));
      return;
    }
    const reply = reading.isCorrection(text) ? null : reading.readReply(text);
    if (reply && this.question) {
      this.#count(reply.value);
      if (reply.rest) this.statements.push(reply.rest);
      const note = `Taken as: ${reply.value}.${reply.rest ? " The rest is added." : ""}`;
      yield* this.#answerCase(text, "reply", note);
      return;
    }
    if (reply && !reply.rest) {
      yield this.#keep(turnOf(text, "aside", { note: "No question is open. Tell me what you feel." }));
      return;
    }
    const rest = reading.newTopic(text);
    if (rest !== null) {
      yield* this.#begin(text, rest, "A new topic, as you said; what was said before no longer counts.");
      return;
    }
    const aside = await this.#aside(text);
    yield* aside ?? this.#add(text);
  }

  /** Answer the question that is open with yes, no or not sure. */
  reply(value) {
    return last(this.streamReply(value));
  }

  /** `reply`, followed while the turn grows. */
  async *streamReply(value) {
    if (!this.question || !ANSWERS.includes(value)) throw new RangeError(`'${value}' answers no open question`);
    const said = `${this.question.finding}: ${value}`;
    this.#count(value);
    yield* this.#answerCase(said, "reply", "");
  }

  /** Leave the case; what was said stays to be read. */
  newTopic() {
    this.statements = [];
    this.replies = new Map();
    this.question = null;
    this.redFlags = [];
  }

  /** Forget everything. */
  clear() {
    this.newTopic();
    this.turns = [];
  }

  /** How sure the model is of the case, answers included, without generating. */
  judge() {
    return this.weighed.judge(this.case, this.inquiry.evidence(this.replies));
  }

  /**
   * Effect of the words of a turn's message on the condition that came first: `{begin, end, effect}`.
   *
   * Words that the model never read ("new topic:", a correction) have none and are left out. A phone takes
   * a moment for each word: `progress` is called with 0–1.
   */
  async explain(turn, progress) {
    if (!turn.answer || !turn.asked) return [];
    const { intent, conditions } = turn.answer;
    const place = intent === "none" ? -1 : this.assistant.conditions.findIndex(({ name }) => name === conditions[0].name);
    for (const { index } of turn.said.matchAll(A_WORD)) {
      const read = turn.said.slice(index).replace(/[ .!?]+$/, "");
      const where = turn.asked.lastIndexOf(read);
      if (where < 0) continue;
      const context = `${turn.asked.slice(0, where).replaceAll("{}", "")}{}${turn.asked.slice(where + read.length)}`;
      const judge = (text) => this.weighed.judge(text);
      const spans = await whichWords(judge, read, place < 0 ? null : place, context, progress);
      return spans.map(({ begin, end, effect }) => ({ begin: begin + index, end: end + index, effect }));
    }
    return [];
  }

  /** The whole state in plain values. */
  toJson() {
    return {
      turns: this.turns.map((turn) => ({ ...turn })),
      statements: [...this.statements],
      replies: Object.fromEntries(this.replies),
      question: this.question,
      red_flags: [...this.redFlags],
    };
  }

  /** Take up a conversation as `toJson` left it, on this or another model. */
  restore({ turns, statements, replies, question, red_flags: redFlags }) {
    this.turns = turns.map(({ said, kind, ...others }) => turnOf(said, kind, others));
    this.statements = [...statements];
    this.replies = new Map(Object.entries(replies));
    this.question = question ? { finding: question.finding, ways: [...question.ways], gain: question.gain } : null;
    this.redFlags = [...redFlags];
  }

  /** A turn that is complete at once. */
  #keep(turn) {
    this.turns.push(turn);
    return turn;
  }

  /** A turn with each of its growing answers; it replaces itself among the turns. */
  async *#grow(turn, answers) {
    const at = this.turns.length;
    for await (const answer of answers) {
      this.turns[at] = { ...turn, answer };
      yield this.turns[at];
    }
  }

  #count(value) {
    this.replies.set(this.question.finding, value);
    this.question = null;
  }

  /** A new case; an empty one asks for words. */
  async *#begin(said, text, note) {
    this.newTopic();
    if (!reading.saysAnything(text)) {
      yield this.#keep(turnOf(said, "new_topic", { note: `${note} What do you feel, and since when?` }));
      return;
    }
    this.statements = [text];
    yield* this.#answerCase(said, "new_topic", note);
  }

  /** The turn of a question about a condition, which leaves the case alone; null for anything else. */
  async #aside(text) {
    const { findings } = this.inquiry;
    let asked = null;
    const about = ABOUT.exec(text);
    if (about && this.names.has(normal(about[1]))) {
      asked = `What are the symptoms of ${about[1]}?`;
    } else if (reading.asksAbout(text, findings)) {
      asked = text;
    } else if (this.statements.length && reading.asks(text)) {
      const [first] = descending((await this.judge()).probabilities.subarray(1));
      asked = reading.aboutTheCase(text, findings, this.assistant.conditions[first].name);
      if (asked === "") return this.#answerCase(text, "aside", "About what you described so far:");
    }
    if (asked === null) return null;
    const alone = this.statements.length ? "Answered on its own; it does not change what you described." : "";
    const note = asked === text ? alone : strip(`Taken as: ${asked} ${alone}`);
    const name = this.names.get(normal(askedName(asked) ?? "")) ?? "";
    return this.#grow(turnOf(text, "aside", { asked, note, about: name }), this.weighed.answers(asked));
  }

  /** A message that describes a case: the first, a correction, a follow-up, or a case of its own. */
  async *#add(text) {
    if (!this.statements.length) {
      this.statements = [text];
      yield* this.#answerCase(text, "case", "");
    } else if (reading.isCorrection(text)) {
      yield* this.#correct(text);
    } else if (!reading.isFollowUp(text) && (await this.#standsAlone(text))) {
      yield* this.#begin(text, text, "Taken as a new topic: it fits other conditions than what you said before.");
    } else {
      this.statements.push(text);
      yield* this.#answerCase(text, "follow_up", "Added to what you said before.");
    }
  }

  async *#correct(text) {
    this.statements = reading.correct(this.statements, text);
    for (const [finding, present] of this.inquiry.findings.recognise(text)) {
      if (this.replies.get(finding) === YES && !present) this.replies.set(finding, NO);
    }
    if (!this.statements.length) {
      this.question = null;
      yield this.#keep(turnOf(text, "correction", { note: "Taken back. What do you feel instead?" }));
      return;
    }
    yield* this.#answerCase(text, "correction", `Corrected. I now have: ${this.case}`);
  }

  /** Whether a message is answered with confidence by itself and shares no likely condition with the case. */
  async #standsAlone(text) {
    const alone = await this.weighed.judge(text);
    if (alone.flagged || alone.none) return false;
    const before = this.#likely((await this.judge()).probabilities);
    return ![...this.#likely(alone.probabilities)].some((condition) => before.has(condition));
  }

  #likely(probabilities) {
    const order = descending(probabilities.subarray(1)).slice(0, SHOWN);
    const limit = this.assistant.calibrator.setLimit;
    return new Set(order.filter((i, at) => at === 0 || probabilities[1 + i] >= limit));
  }

  /** Ask the model about the whole case, apply the rules to all that was said, choose the next question. */
  async *#answerCase(said, kind, note) {
    const asked = this.case;
    const evidence = this.inquiry.evidence(this.replies);
    const fired = this.#fired();
    this.question = null;
    const told = map(this.weighed.answers(asked, evidence), async (answer) => {
      // The pass that the answer was made from is judged again without the evidence, which costs next to nothing.
      const doubt = evidence !== null && !answer.flagged && (await this.weighed.judge(asked)).flagged;
      const marked = withRedFlags(doubt ? doubted(answer) : answer, fired);
      this.redFlags = marked.red_flags;
      return marked;
    });
    let intent = "none";
    for await (const turn of this.#grow(turnOf(said, kind, { asked, note }), told)) {
      ({ intent } = turn.answer);
      yield turn;
    }
    const { known } = this;
    // In an emergency nothing is asked: help comes first. Where nothing known fits, a named finding is a start.
    if (!this.redFlags.length && (intent !== "none" || [...known.values()].includes(true))) {
      const { probabilities } = await this.weighed.judge(asked, evidence);
      this.question = this.inquiry.next(probabilities, known, this.replies.keys());
    }
  }

  /**
   * Red flags in every statement, and in every yes beside every statement.
   *
   * The rules look for words near each other; a finding that was answered with yes belongs to each of them.
   */
  #fired() {
    const told = [...this.replies].filter(([, value]) => value === YES).map(([finding]) => finding).join(". ");
    const fired = new Map();
    for (const statement of this.statements) {
      for (const flag of this.assistant.redFlags.check(told ? `${told}. ${statement}` : statement)) {
        if (!fired.has(flag.id)) fired.set(flag.id, flag);
      }
    }
    return [...fired.values()];
  }
}

async function* map(items, change) {
  for await (const item of items) yield await change(item);
}

async function last(turns) {
  let turn;
  for await (turn of turns);
  return turn;
}

/** An answer with the mark of doubt, where the words alone are not sure enough. */
function doubted(answer) {
  return {
    ...answer,
    flagged: true,
    reasons: [...answer.reasons, ANSWERS_ONLY],
    reply: `I am not sure; this may be made up. ${ANSWERS_ONLY}\n${answer.reply}`,
  };
}

/** An answer with further red flags, which put it among the emergencies. */
function withRedFlags(answer, fired) {
  const more = fired.filter((flag) => !answer.red_flags.includes(flag.name));
  if (!more.length) return answer;
  const head = answer.red_flags.length ? [] : [EMERGENCY];
  return {
    ...answer,
    triage: "emergency",
    red_flags: [...answer.red_flags, ...more.map((flag) => flag.name)],
    reply: [...head, ...more.map((flag) => `${flag.name}: ${flag.advice}`), answer.reply].join("\n"),
  };
}
