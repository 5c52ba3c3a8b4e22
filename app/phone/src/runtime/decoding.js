/**
 * Which tokens an answer may go on with: only names of findings and treatments that the bundle knows. Port of
 * `symptomchat/runtime/decoding.py`.
 *
 * In: a grammar, and the records of the conditions. Out: for each step of an answer the tokens that may follow and what
 * their logits gain.
 */

import constants from "../constants.js";
import { INTENTS } from "../language/tokenizer.js";

const { bonus: BONUS, most: MOST, full: FULL, parts: PARTS } = constants.decoding;

export { PARTS };

/** Entries by their token ids; node 0 is the root. Of two with the same ids the first counts. */
export class Trie {
  #rows;

  /** @param {[string, number[]][]} entries texts with their token ids */
  constructor(entries) {
    const children = [new Map()];
    /** Text of the entry that is complete at a node. */
    this.text = new Map();
    /** Nodes of an entry from the root to the one where it is complete. */
    this.paths = new Map();
    const complete = [];
    for (const [text, ids] of entries) {
      if (!ids.length || this.paths.has(text)) continue;
      const path = [0];
      for (const token of ids) {
        const here = children[path.at(-1)];
        if (!here.has(token)) {
          here.set(token, children.length);
          children.push(new Map());
        }
        path.push(here.get(token));
      }
      if (!this.text.has(path.at(-1))) {
        this.text.set(path.at(-1), text);
        complete.push(path);
      }
      this.paths.set(text, path);
    }
    this.#rows = children;
    /** Number of entries at or below each node. */
    this.entries = new Int32Array(children.length);
    for (const path of complete) for (const node of path) this.entries[node] += 1;
  }

  /** Tokens that go on from a node, each with the node that it leads to. */
  children(node) {
    const row = this.#rows[node];
    // By token id, so that a tie is broken as in Python.
    if (!Array.isArray(row)) this.#rows[node] = [...row].sort(([a], [b]) => a - b);
    return this.#rows[node];
  }
}

/** The tries of a bundle: findings, and treatments. */
export class Vocabulary {
  constructor(grammar, conditions) {
    this.grammar = grammar;
    this.tries = PARTS.map((part) => {
      const texts = [...new Set(conditions.flatMap((record) => record[part]))];
      const pieces = grammar.piecesOf(texts);
      return new Trie(texts.map((text, at) => [text, pieces[at]]));
    });
  }

  /** A guide through one answer about the condition of a record; `intent` where it is known what is asked. */
  guide(record, bonus = BONUS, intent = null) {
    return new Guide(this, record, bonus, intent);
  }
}

/**
 * What one answer has said, and how it may go on; the rules are those of `Guide` in Python.
 *
 * `named` holds the entries: `{part, text, begin, end}`, positions of tokens after the condition token.
 */
export class Guide {
  #tries;
  #own;
  #left;
  #wanted;
  #part = 0;
  #path = [0];
  #at = 0;
  #begin = 0;

  constructor({ grammar, tries }, record, bonus, intent) {
    this.grammar = grammar;
    this.intents = intent === null ? grammar.intents : [grammar.intents[INTENTS.indexOf(intent)]];
    // Who asks for the treatment gets no findings first.
    this.skips = intent === "treatment" && record[PARTS[1]].length > 0;
    this.bonus = bonus;
    this.named = [];
    this.#tries = tries;
    // Node where an entry of the record is complete; two names of one entry count once.
    this.#own = tries.map(({ paths }, part) =>
      new Set(record[PARTS[part]].filter((text) => paths.has(text)).map((text) => paths.get(text).at(-1))));
    this.#left = tries.map(({ entries }) => entries.slice());
    this.#wanted = tries.map(({ entries, text, paths }, part) => {
      const wanted = new Int32Array(entries.length);
      for (const node of this.#own[part]) for (const at of paths.get(text.get(node))) wanted[at] += 1;
      return wanted;
    });
  }

  /** The entry that is complete here and was not named before, or undefined. */
  get #text() {
    const text = this.#tries[this.#part].text.get(this.#path.at(-1));
    return this.named.some((entry) => entry.part === this.#part && entry.text === text) ? undefined : text;
  }

  /** Tokens that may follow, each with what is added to its logit. */
  options() {
    const { grammar, bonus } = this;
    if (this.#at === 0) return this.intents.map((token) => [token, 0]);
    if (this.#at === 1 && this.skips) return [[grammar.treatments, 0]];
    const part = this.#part;
    const found = [];
    for (const [token, node] of this.#tries[part].children(this.#path.at(-1))) {
      if (this.#left[part][node] > 0) found.push([token, this.#wanted[part][node] > 0 ? bonus : 0]);
    }
    return [...found, ...this.#marks()];
  }

  #marks() {
    const { grammar, bonus } = this;
    const part = this.#part;
    const complete = this.#text !== undefined;
    if (!complete && this.#path.length > 1) return [];
    const own = complete && this.#own[part].has(this.#path.at(-1));
    const gain = own ? bonus : 0;
    const found = [];
    if (complete && this.#left[part][0] > 1 && this.#room(part)) {
      found.push([grammar.item, this.#wanted[part][0] - own > 0 ? gain : gain - bonus]);
    }
    if (part === 0 && this.#left[1][0] > 0) {
      found.push([grammar.treatments, this.#wanted[1][0] > 0 ? gain : gain - bonus]);
    }
    // Without any entry there is nothing to say but the end.
    if (complete || this.#left[part][0] === 0) found.push([grammar.end, gain]);
    return found;
  }

  /** Whether the part may go on after the entry that is complete here. */
  #room(part) {
    const named = this.named.filter((entry) => entry.part === part).length + 1;
    return named < MOST[part] && !(part === 0 && this.#at > FULL);
  }

  /** Go on with a token. */
  take(token) {
    if (!this.options().some(([allowed]) => allowed === token)) {
      throw new RangeError(`token ${token} may not follow here`);
    }
    this.#go(token);
  }

  #go(token) {
    const { grammar } = this;
    if (this.#at === 0 || token === grammar.item || token === grammar.treatments || token === grammar.end) {
      this.#close();
      if (token === grammar.treatments) this.#part = 1;
      this.#path = [0];
      this.#begin = this.#at + 1;
    } else {
      const [, node] = this.#tries[this.#part].children(this.#path.at(-1)).find(([child]) => child === token);
      this.#path.push(node);
    }
    this.#at += 1;
  }

  /** Note the entry that is complete here; it is not named again. */
  #close() {
    const text = this.#text;
    if (text === undefined) return;
    const part = this.#part;
    this.named.push({ part, text, begin: this.#begin, end: this.#at });
    for (const node of this.#path) this.#left[part][node] -= 1;
    if (this.#own[part].has(this.#path.at(-1))) for (const node of this.#path) this.#wanted[part][node] -= 1;
  }

  /** Go on with the token of the highest logit after the gains, and return it. */
  choose(logits) {
    let best = -1;
    let highest = -Infinity;
    for (const [token, gain] of this.options()) {
      // Rounded as in Python, which adds single-precision numbers.
      const score = Math.fround(logits[token] + gain);
      if (score > highest) [best, highest] = [token, score];
    }
    this.#go(best);
    return best;
  }
}
