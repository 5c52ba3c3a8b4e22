/** The page's side of the model's thread: promises in place of messages. */

import { SymptomChatError } from "./errors.js";

export class Model {
  #waiting = new Map();
  #count = 0;

  constructor() {
    this.thread = new Worker("worker.js");
    this.thread.addEventListener("message", ({ data }) => {
      const { resolve, reject, grow } = this.#waiting.get(data.number);
      if (data.part !== undefined) {
        grow?.(data.part);
        return;
      }
      this.#waiting.delete(data.number);
      if (data.error === undefined) resolve(data.value);
      else reject(data.expected ? new SymptomChatError(data.error) : new Error(data.error));
    });
    this.thread.addEventListener("error", (event) => {
      const error = new Error(event.message || "the model's thread stopped; load the page again");
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
  }

  #call(message, grow) {
    this.#count += 1;
    const number = this.#count;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject, grow });
      this.thread.postMessage({ number, ...message });
    });
  }

  /** Open the bundle; what is known about it. */
  open() {
    return this.#call({ call: "open" });
  }

  /** `{answer, measured}` of one question outside any conversation. */
  ask(text, risk) {
    return this.#call({ call: "ask", text, risk });
  }

  /**
   * Say something in the conversation: the turn, its place, and what the conversation then stands at.
   *
   * @param {number} risk the accepted share of wrong answers among those not flagged
   * @param {(turn: object) => void} grow called with the turn each time that it has grown
   */
  say(text, risk, grow) {
    return this.#call({ call: "say", text, risk }, grow);
  }

  /** Answer the question that is open; like `say`. */
  reply(value, risk, grow) {
    return this.#call({ call: "reply", value, risk }, grow);
  }

  /** Leave the case; what the conversation then stands at. */
  newTopic() {
    return this.#call({ call: "newTopic" });
  }

  /** Forget everything; what the conversation then stands at. */
  clear() {
    return this.#call({ call: "clear" });
  }

  /** Take up a conversation as its `state` was: all its turns, and what it stands at. */
  restore(state) {
    return this.#call({ call: "restore", state });
  }

  /** Which words of a turn mattered, by its place; `progress` is called with 0–1. */
  explain(at, risk, progress) {
    return this.#call({ call: "explain", at, risk }, progress);
  }

  /** All that is known of a condition. */
  condition(name) {
    return this.#call({ call: "condition", name });
  }
}
