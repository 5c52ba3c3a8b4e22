/**
 * Runs the parts of the port that need no browser: `node tests/port.mjs BUNDLE INPUT OUTPUT`.
 *
 * In: the folder of a bundle, and a JSON file with questions, texts and a recording of what the Python engine computed
 * for them. Out: a JSON file with what this port makes of the same. `tests/test_phone_web.py` compares.
 */

import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

import { unpack } from "../src/phone/records.js";
import { Assistant, askedName, checkQuestion } from "../src/runtime/assistant.js";
import { restoreCase, supported } from "../src/runtime/grounding.js";
import { percent } from "../src/runtime/python.js";

const [bundle, input, output] = process.argv.slice(2);
const read = (file) => JSON.parse(readFileSync(file, "utf8"));
const [tokenizer, stored, confidence] = ["tokenizer", "knowledge", "confidence"].map((name) =>
  read(path.join(bundle, `${name}.json`)));
const knowledge = unpack(stored);
const given = read(input);

/** Plays a recording in place of the model. */
class Recording {
  constructor({ question_tokens: questionTokens, answer_tokens: answerTokens }) {
    Object.assign(this, { questionTokens, answerTokens });
  }

  async prefill(ids) {
    const { ids: expected, probabilities, novelty } = this.now;
    if (JSON.stringify(ids) !== JSON.stringify(expected)) throw new Error("another question was recorded");
    return { length: ids.length, probabilities: Float32Array.from(probabilities), novelty, release() {} };
  }

  async *generate(question, condition, end, guide) {
    const { first, tokens } = this.now;
    if (condition !== first) throw new Error(`token ${condition} opens the answer, ${first} was recorded`);
    for (const [token, log] of tokens) {
      guide.take(token);
      yield [token, log];
    }
  }
}

const engine = new Recording(given.engine);
const assistant = new Assistant({ engine, tokenizer, knowledge, confidence });

function complaint(text) {
  try {
    checkQuestion(text);
    return null;
  } catch (error) {
    return error.message;
  }
}

const answers = [];
for (const recorded of given.recorded) {
  engine.now = recorded;
  answers.push(await assistant.ask(recorded.text, recorded.id));
}

/** What a model with these rows of logits would say about a condition: its tokens, and the entries that they name. */
function steered({ condition, begin, end }) {
  const guide = assistant.vocabulary.guide(assistant.conditions[condition]);
  const tokens = [];
  for (let row = begin; row < end && tokens.at(-1) !== assistant.grammar.end; row += 1) {
    tokens.push(guide.choose(logits.subarray(row * given.width, (row + 1) * given.width)));
  }
  return { tokens, named: guide.named.map(({ part, text, begin: first, end: last }) => [part, text, first, last]) };
}

const bytes = readFileSync(given.logits);
const logits = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);

writeFileSync(
  output,
  JSON.stringify({
    answers,
    redFlags: given.texts.map((text) => assistant.redFlags.check(text).map((flag) => flag.id)),
    ids: given.texts.map((text) => assistant.grammar.question(text)),
    own: given.texts.map((text) => assistant.patient.own(text)),
    steered: given.steered.map(steered),
    named: given.texts.map((text) => assistant.named(text)),
    asked: given.texts.map(askedName),
    complaints: given.texts.map(complaint),
    decoded: given.tokens.map((ids) => assistant.grammar.read(ids)),
    supported: given.claims.map(([claim, records]) => supported(claim, records, knowledge.phrasings)),
    cased: given.claims.map(([claim]) => restoreCase(claim, knowledge.cased)),
    thresholds: given.risks.map((risk) => assistant.calibrator.thresholdFor(risk)),
    percents: given.shares.map(percent),
  }),
);
