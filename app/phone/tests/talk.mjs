/**
 * Runs the port of the conversation without a browser: `node tests/talk.mjs BUNDLE INPUT OUTPUT`.
 *
 * In: the folder of a bundle, and a JSON file with texts, a script of messages and a recording of what the Python
 * engine computed for them. Out: a JSON file with what this port makes of the same. `tests/test_phone_dialogue.py`
 * compares.
 */

import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

import { unpack } from "../src/phone/records.js";
import { Assistant } from "../src/runtime/assistant.js";
import { Conversation } from "../src/runtime/dialogue.js";
import { spansOf, without } from "../src/runtime/explain.js";
import { informationGain, textOf } from "../src/runtime/inquiry.js";
import * as reading from "../src/runtime/reading.js";

const [bundle, input, output] = process.argv.slice(2);
const read = (file) => JSON.parse(readFileSync(file, "utf8"));
const [tokenizer, stored, confidence] = ["tokenizer", "knowledge", "confidence"].map((name) =>
  read(path.join(bundle, `${name}.json`)));
const knowledge = unpack(stored);
const given = read(input);

/** Plays a recording in place of the model. */
class Recording {
  constructor({ question_tokens: questionTokens, answer_tokens: answerTokens, passes, generated }) {
    Object.assign(this, { questionTokens, answerTokens, passes, generated });
    this.runs = 0;
  }

  async prefill(ids) {
    const pass = this.passes[ids.join()];
    if (!pass) throw new Error(`no pass was recorded for ${ids.join()}`);
    this.runs += 1;
    return { length: ids.length, ids, probabilities: Float32Array.from(pass[0]), novelty: pass[1], release() {} };
  }

  async *generate(question, condition, end, guide) {
    const tokens = this.generated[`${question.ids.join()}:${condition}`];
    if (!tokens) throw new Error(`no answer of condition token ${condition} was recorded`);
    for (const [token, log] of tokens) {
      guide.take(token);
      yield [token, log];
    }
  }
}

const engine = new Recording(given.engine);
const start = performance.now();
const talk = new Conversation(new Assistant({ engine, tokenizer, knowledge, confidence }), knowledge.names);
const opened = performance.now() - start;
const { inquiry } = talk;
const { findings, profiles } = inquiry;

async function step({ say, reply, newTopic, explain }) {
  let turn = null;
  let spans = null;
  if (say !== undefined) turn = await talk.say(say);
  else if (reply !== undefined) turn = talk.question ? await talk.reply(reply) : null;
  else if (newTopic) talk.newTopic();
  else if (explain) spans = await talk.explain(talk.turns.at(-1));
  return {
    turn,
    spans,
    statements: [...talk.statements],
    replies: Object.fromEntries(talk.replies),
    known: Object.fromEntries(talk.known),
    question: talk.question,
    asked: talk.question && textOf(talk.question),
    redFlags: [...talk.redFlags],
  };
}

const steps = [];
for (const next of given.script) {
  steps.push(await step(next));
  // The state survives being written and read after every message.
  talk.restore(JSON.parse(JSON.stringify(talk.toJson())));
}

writeFileSync(
  output,
  JSON.stringify({
    opened,
    runs: engine.runs,
    steps,
    state: talk.toJson(),
    names: Object.fromEntries(talk.names),
    findings: profiles.names,
    background: [...profiles.background],
    wider: profiles.wider,
    mentions: given.texts.map((text) =>
      findings.mentions(text).map(({ finding, present, begin, end }) => [finding, present, text.slice(begin, end)])),
    readings: given.texts.map((text) => [
      reading.readReply(text),
      reading.newTopic(text),
      reading.isCorrection(text),
      reading.isFollowUp(text),
      reading.asks(text),
      reading.asksAbout(text, findings),
      reading.aboutTheCase(text, findings, "Gout"),
    ]),
    corrected: given.corrections.map(([statements, text]) => reading.correct(statements, text)),
    spans: given.texts.map((text) => spansOf(text)),
    without: given.texts.map((text) => without(text, spansOf(text, 3).slice(0, 2))),
    gains: given.gains.map(([prior, likelihood]) => [...informationGain(prior, likelihood)]),
    questions: given.inquiries.map(({ probabilities, known, asked }) =>
      inquiry.next(Float32Array.from(probabilities), new Map(Object.entries(known)), asked)),
    evidence: given.evidence.map((replies) => {
      const found = inquiry.evidence(new Map(Object.entries(replies)));
      return found && [...found];
    }),
  }),
);
