/**
 * One exchange ⇄ token ids. Port of `symptomchat/language/grammar.py`:
 *
 *     [CLS] question [SEP] <c:panic-disorder> <ask:diagnose> palpitations [;] sweating [treatments] … [end]
 */

import { strip } from "../runtime/python.js";
import { INTENTS, INTENT_TOKENS, MARKS } from "./tokenizer.js";

/** Encodes questions and reads answers; the longest of each, marks included, are given in tokens. */
export class Grammar {
  constructor(tokenizer, questionTokens, answerTokens) {
    this.tokenizer = tokenizer;
    this.questionTokens = questionTokens;
    this.answerTokens = answerTokens;
    this.user = this.#id(MARKS.user);
    this.answer = this.#id(MARKS.answer);
    this.unknown = this.#id(MARKS.unknown);
    this.end = this.#id(MARKS.end);
    this.item = this.#id(MARKS.item);
    this.treatments = this.#id(MARKS.treatments);
    this.none = this.#id(MARKS.none);
    this.intents = INTENTS.map((intent) => this.#id(INTENT_TOKENS[intent]));
    this.size = tokenizer.vocabulary.size;
    /** Number of condition tokens, `<c:none>` (the first) included; they are the last ids. */
    this.conditions = this.size - this.none;
  }

  #id(token) {
    const id = this.tokenizer.id(token);
    if (id === undefined) throw new TypeError(`tokenizer: token ${token} is missing`);
    return id;
  }

  /** Ids of a text; marks of the grammar typed by a user are plain text, never tokens. */
  pieces(text) {
    const whole = text.replace(/\p{Surrogate}/gu, "?");
    // A space after each opening bracket keeps typed marks such as "[SEP]" or "<c:gout>" from being read as tokens.
    return this.tokenizer.encode(
      whole.replaceAll("[", "[ ").replaceAll("<c:", "< c:").replaceAll("<ask:", "< ask:"),
    );
  }

  /** `pieces` of many texts at once: each word is cut once, since no piece reaches over a blank. */
  piecesOf(texts) {
    const known = new Map();
    const cut = (word) => {
      if (!known.has(word)) known.set(word, this.pieces(word));
      return known.get(word);
    };
    return texts.map((text) => text.split(" ").flatMap(cut));
  }

  /** `[CLS] text [SEP]`; a text that is too long keeps its beginning and its end. */
  question(text) {
    let ids = this.pieces(text);
    const room = this.questionTokens - 2;
    if (ids.length > room) {
      const head = Math.floor((room * 2) / 3);
      ids = [...ids.slice(0, head), ...ids.slice(ids.length - (room - head))];
    }
    return [this.user, ...ids, this.answer];
  }

  /** Share of the question's pieces that the vocabulary does not know, 0–1. */
  unknownShare(ids) {
    const inner = ids.slice(1, -1);
    return inner.length ? inner.filter((id) => id === this.unknown).length / inner.length : 1;
  }

  /**
   * Read back the tokens that follow the condition token: `{intent, symptoms, treatments, spans}`, where a span is
   * the first and the last position (exclusive) of an item, symptoms first.
   */
  read(ids) {
    const intent = ids.length && this.intents.includes(ids[0]) ? INTENTS[this.intents.indexOf(ids[0])] : "none";
    const lists = [[], []];
    const spans = [[], []];
    let which = 0;
    let begin = 1;
    for (let at = 1; at <= ids.length; at += 1) {
      const token = at < ids.length ? ids[at] : this.end;
      if (token !== this.item && token !== this.treatments && token !== this.end) continue;
      const text = begin < at ? strip(this.tokenizer.decode(ids.slice(begin, at))) : "";
      if (text && !lists[which].includes(text)) {
        lists[which].push(text);
        spans[which].push([begin, at]);
      }
      begin = at + 1;
      if (token === this.treatments) which = 1;
      if (token === this.end) break;
    }
    return { intent, symptoms: lists[0], treatments: lists[1], spans: [...spans[0], ...spans[1]] };
  }
}
