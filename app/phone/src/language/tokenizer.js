/** Marks of the exchange grammar, as in `symptomchat/language/tokenizer.py`, and the bundle's tokenizer. */

import { Tokenizer } from "@huggingface/tokenizers";

import constants from "../constants.js";

export const { marks: MARKS, intents: INTENT_TOKENS } = constants;
export const INTENTS = Object.keys(INTENT_TOKENS);

/** The tokenizer of a parsed `tokenizer.json`, with the two calls that the grammar needs. */
export class BundleTokenizer {
  constructor(spec) {
    this.tokenizer = new Tokenizer(spec, {});
    this.vocabulary = new Set([...Object.keys(spec.model.vocab), ...spec.added_tokens.map((token) => token.content)]);
  }

  /** Ids of a text, without marks around it. */
  encode(text) {
    // The Python library lower-cases letter by letter, JavaScript knows the form of a sigma at the end of a word.
    return this.tokenizer.encode(text.replaceAll("Σ", "σ"), { add_special_tokens: false }).ids;
  }

  /** Text of ids, without the grammar's marks. */
  decode(ids) {
    return this.tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
  }

  /** Id of a token, or undefined. */
  id(token) {
    return this.vocabulary.has(token) ? this.tokenizer.token_to_id(token) : undefined;
  }
}
