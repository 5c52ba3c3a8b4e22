/**
 * The model's own thread, so that the page stays alive while an answer is being generated; it holds the conversation.
 *
 * In: `{call, …}` with a number, `open` first. Out: the same number with a `value`, or with an `error` (one line) and
 * whether it is the user's to mend (`expected`); before it `part`s: a turn as it grows, or the
 * share of the work that is done.
 */

import { SymptomChatError } from "./errors.js";
import { openBundle } from "./phone/bundle.js";
import { Assistant } from "./runtime/assistant.js";
import { Conversation } from "./runtime/dialogue.js";
import { Engine } from "./runtime/engine.js";
import { frequencies } from "./runtime/findings.js";
import { textOf } from "./runtime/inquiry.js";

let assistant;
let talk;
/** Name of a condition → its record. */
let records;
let before = Promise.resolve();

async function open() {
  const start = performance.now();
  const { manifest, model, ...files } = await openBundle(new URL("model/", self.location.href));
  const fetched = performance.now();
  const engine = await Engine.open(model, new URL("wasm/", self.location.href).href);
  assistant = new Assistant({ engine, ...files });
  talk = new Conversation(assistant, files.knowledge.names);
  records = new Map(assistant.conditions.map((record) => [record.name, record]));
  return {
    name: manifest.recipe?.name ?? "",
    conditions: assistant.conditions.length,
    sources: (manifest.sources ?? []).map(({ name }) => name).filter((name) => name),
    risk: assistant.calibrator.risk,
    risks: assistant.calibrator.thresholds.map(([risk]) => risk),
    milliseconds: { fetch: fetched - start, open: performance.now() - fetched },
  };
}

/** A turn with what the knowledge base says about it: the first condition, the advice of red flags, the findings. */
function dressed(turn) {
  const { answer, about, asked, said } = turn;
  const name = about || (answer && answer.intent !== "none" ? answer.conditions[0].name : "");
  const advice = new Map(assistant.redFlags.rules.map((rule) => [rule.name, rule.advice]));
  return {
    ...turn,
    first: records.get(name) ?? null,
    advice: (answer?.red_flags ?? []).map((flag) => [flag, advice.get(flag) ?? ""]),
    heard: [...talk.inquiry.findings.recognise(asked || said)],
  };
}

/** What the conversation stands at, beside its turns. */
function standing() {
  const { question, replies, redFlags, statements } = talk;
  return {
    question: question && { text: textOf(question), ways: question.ways, number: replies.size + 1 },
    redFlags,
    open: statements.length > 0,
    state: talk.toJson(),
  };
}

async function grow(turns, number) {
  let turn;
  for await (turn of turns) self.postMessage({ number, part: dressed(turn) });
  return { turn: dressed(turn), at: talk.turns.length - 1, measured: assistant.engine.measured, ...standing() };
}

/** All that the page can ask for; `risk` is the accepted share of wrong answers among those not flagged. */
const calls = {
  open,
  ask: async ({ text }) => ({ answer: await assistant.ask(text), measured: assistant.engine.measured }),
  say: ({ text, number }) => grow(talk.stream(text), number),
  reply: ({ value, number }) => grow(talk.streamReply(value), number),
  newTopic() {
    talk.newTopic();
    return standing();
  },
  clear() {
    talk.clear();
    return standing();
  },
  restore({ state }) {
    talk.restore(state);
    return { turns: talk.turns.map(dressed), ...standing() };
  },
  explain: ({ at, number }) => talk.explain(talk.turns[at], (part) => self.postMessage({ number, part })),
  condition({ name }) {
    const record = records.get(name);
    if (!record) throw new SymptomChatError(`${name}: is no condition that this app knows; choose another`);
    const shares = "frequencies" in record ? frequencies(record) : null;
    const others = record.confusable.map((other) => ({ ...other, known: records.has(other.name) }));
    return { ...record, confusable: others, shares, known: Object.fromEntries(talk.known) };
  },
};

async function serve({ number, call, risk, ...values }) {
  try {
    if (call !== "open") assistant.accept(risk ?? assistant.calibrator.risk);
    self.postMessage({ number, value: await calls[call]({ number, ...values }) });
  } catch (error) {
    self.postMessage({ number, error: String(error.message ?? error), expected: error instanceof SymptomChatError });
  }
}

// One question at a time: the engine has one set of buffers.
self.addEventListener("message", ({ data }) => {
  before = before.then(() => serve(data));
});
