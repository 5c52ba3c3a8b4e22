/**
 * The model's own thread, so that the page stays alive while an answer is being generated.
 *
 * In: `{call: "open"}` and then `{call: "ask", text, risk}`, each with a number. Out: the same number with a `value`,
 * or with an `error` (one line) and whether it is the user's to mend (`expected`).
 */

import { SymptomChatError } from "./errors.js";
import { openBundle } from "./phone/bundle.js";
import { Assistant } from "./runtime/assistant.js";
import { Engine } from "./runtime/engine.js";

let assistant;
let before = Promise.resolve();

async function open() {
  const start = performance.now();
  const { manifest, model, ...files } = await openBundle(new URL("model/", self.location.href));
  const fetched = performance.now();
  const engine = await Engine.open(model, new URL("wasm/", self.location.href).href);
  assistant = new Assistant({ engine, ...files });
  return {
    name: manifest.recipe?.name ?? "",
    conditions: assistant.conditions.length,
    risk: assistant.calibrator.risk,
    risks: assistant.calibrator.thresholds.map(([risk]) => risk),
    milliseconds: { fetch: fetched - start, open: performance.now() - fetched },
  };
}

async function ask({ text, risk }) {
  assistant.accept(risk ?? assistant.calibrator.risk);
  const answer = await assistant.ask(text);
  return { answer, measured: assistant.engine.measured };
}

async function serve({ number, call, ...values }) {
  try {
    self.postMessage({ number, value: await (call === "open" ? open() : ask(values)) });
  } catch (error) {
    self.postMessage({ number, error: String(error.message ?? error), expected: error instanceof SymptomChatError });
  }
}

// One question at a time: the engine has one set of buffers.
self.addEventListener("message", ({ data }) => {
  before = before.then(() => serve(data));
});
