/**
 * What is known beside a text, added to the model's logits as `_judge` of `symptomchat/runtime/assistant.py` does.
 *
 * In: an assistant, a text, and logarithms of likelihood ratios. Out: judgements and answers weighed with them. The
 * weight is laid on what the engine computed, so that all that follows reads one ranking; a text that was just run
 * is not run again to be judged.
 */

const REMEMBERED = 16;

/** Probabilities `[C]` weighed with evidence; the temperature divides logarithms later and must not sharpen it. */
export function weigh(raw, evidence, temperature) {
  const logits = Float64Array.from(raw, (p, at) => Math.fround(Math.log(Math.max(p, 1e-12))) + temperature * evidence[at]);
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const raised = logits.map((logit) => Math.exp(logit - highest));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((value) => value / sum);
}

/** An assistant that can be told what is known beside the text. It works on one question at a time. */
export class Weighed {
  #engine;
  #evidence = null;
  #passes = new Map();

  constructor(assistant) {
    this.assistant = assistant;
    const engine = assistant.engine;
    this.#engine = engine;
    const prefill = (ids) => this.#prefill(ids);
    assistant.engine = new Proxy(engine, {
      get(target, name) {
        if (name === "prefill") return prefill;
        const value = target[name];
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  }

  /** How sure an answer would be, without generating it; the same numbers as `answers` gives. */
  async judge(text, evidence = null) {
    const ids = this.assistant.encode(text);
    const key = ids.join();
    if (!this.#passes.has(key)) (await this.#run(ids)).release();
    const { raw, novelty } = this.#passes.get(key);
    return this.assistant.judge(text, this.#weighed(raw, evidence), novelty);
  }

  /** The answer to a text; where the assistant streams, each of its growing answers. */
  async *answers(text, evidence = null) {
    this.#evidence = evidence;
    try {
      if (this.assistant.stream) yield* this.assistant.stream(text);
      else yield await this.assistant.ask(text);
    } finally {
      this.#evidence = null;
    }
  }

  #weighed(raw, evidence) {
    return evidence ? weigh(raw, evidence, this.assistant.calibrator.temperature) : raw;
  }

  async #prefill(ids) {
    const question = await this.#run(ids);
    question.probabilities = this.#weighed(question.probabilities, this.#evidence);
    return question;
  }

  async #run(ids) {
    const question = await this.#engine.prefill(ids);
    if (this.#passes.size >= REMEMBERED) this.#passes.delete(this.#passes.keys().next().value);
    this.#passes.set(ids.join(), { raw: question.probabilities, novelty: question.novelty });
    return question;
  }
}
