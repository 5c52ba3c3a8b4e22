/** The page's side of the model's thread: promises in place of messages. */

import { SymptomChatError } from "./errors.js";

export class Model {
  #waiting = new Map();
  #count = 0;

  constructor() {
    this.thread = new Worker("worker.js");
    this.thread.addEventListener("message", ({ data }) => {
      const { resolve, reject } = this.#waiting.get(data.number);
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

  #call(message) {
    this.#count += 1;
    const number = this.#count;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.thread.postMessage({ number, ...message });
    });
  }

  /** Open the bundle; what is known about it. */
  open() {
    return this.#call({ call: "open" });
  }

  /** `{answer, measured}`; `risk` is the accepted share of wrong answers among those not flagged. */
  ask(text, risk) {
    return this.#call({ call: "ask", text, risk });
  }
}
