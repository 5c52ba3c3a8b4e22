/**
 * Prefill and decode over the `.tflite` of a bundle. Port of `symptomchat/runtime/engine.py` onto LiteRT.js.
 *
 * In: token ids. Out: probabilities, novelty, and generated token ids with their log-probabilities. Tensors of
 * LiteRT.js live in memory of their own and are deleted by hand as soon as they have been used.
 */

import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";

import { SymptomChatError } from "../errors.js";

const numbers = (...values) => new Tensor(Int32Array.from(values), [values.length]);
const free = (tensors) => Object.values(tensors).forEach((tensor) => tensor.delete());

/** One model file, opened once; answers one question at a time. */
export class Engine {
  /** Open a model: its bytes, and the folder of `litert.js` and `litert.wasm`. */
  static async open(bytes, wasm) {
    // In a worker the loader would look beside the worker's script, and for the name that the build gave away.
    globalThis.Module = { locateFile: () => new URL("litert.wasm", wasm).href };
    try {
      await loadLiteRt(new URL("litert.js", wasm).href);
    } catch (error) {
      throw new SymptomChatError(`this browser cannot run the model (${error.message}); use a current one`);
    }
    let model;
    try {
      model = await loadAndCompile(bytes, { accelerator: "wasm" });
      return new Engine(model);
    } catch {
      model?.delete();
      throw new SymptomChatError("the model file is not a SymptomChat model; build the app again");
    }
  }

  constructor(model) {
    this.prefiller = model.signatures.prefill;
    this.decoder = model.signatures.decode;
    const shapes = (runner) => runner.getInputDetails().map(({ name, shape }) => [name, [...shape]]);
    this.questionTokens = new Map(shapes(this.prefiller)).get("tokens")[1];
    this.answerCaches = shapes(this.decoder).filter(([name]) => name.slice(1, 3) === "a_");
    this.answerTokens = this.answerCaches[0][1][2];
    /** Milliseconds of the last question: its prefill, and each decoded token. */
    this.measured = { prefill: 0, tokens: [] };
  }

  /** Run a question into a cache: `{length, probabilities, novelty, cache, release()}`. */
  async prefill(ids) {
    if (!ids.length || ids.length > this.questionTokens) {
      throw new RangeError(`a question has 1 to ${this.questionTokens} tokens, not ${ids.length}`);
    }
    const start = performance.now();
    const padded = new Int32Array(this.questionTokens);
    padded.set(ids);
    const inputs = { tokens: new Tensor(padded, [1, this.questionTokens]), length: numbers(ids.length) };
    const { probabilities, novelty, ...cache } = await this.prefiller.run(inputs);
    free(inputs);
    const question = {
      length: ids.length,
      probabilities: Float32Array.from(probabilities.toTypedArray()),
      novelty: novelty.toTypedArray()[0],
      cache,
      release: () => free(cache),
    };
    free({ probabilities, novelty });
    this.measured = { prefill: performance.now() - start, tokens: [] };
    return question;
  }

  /**
   * Greedy decoding after a condition token: `[token, log-probability]` until `end`; the log-probability is that in the
   * model's own distribution over all tokens.
   *
   * @param {Guide} guide chooses each token from the logits
   */
  async *generate(question, condition, end, guide) {
    const length = numbers(question.length);
    let own = Object.fromEntries(
      this.answerCaches.map(([name, shape]) => [name, new Tensor(new Float32Array(shape.reduce((a, b) => a * b)), shape)]),
    );
    let token = condition;
    try {
      for (let at = 0; at < this.answerTokens; at += 1) {
        const start = performance.now();
        const inputs = { token: numbers(token), step: numbers(at) };
        const { logits, ...written } = await this.decoder.run({ ...inputs, length, ...question.cache, ...own });
        free(inputs);
        free(own);
        own = written;
        const row = Float32Array.from(logits.toTypedArray());
        free({ logits });
        token = guide.choose(row);
        this.measured.tokens.push(performance.now() - start);
        yield [token, logProbability(row, token)];
        if (token === end) return;
      }
    } finally {
      free(own);
      free({ length });
    }
  }
}

/** Log-probability of a token in a row of logits. */
function logProbability(row, token) {
  const highest = row.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - highest);
  return row[token] - highest - Math.log(sum);
}
