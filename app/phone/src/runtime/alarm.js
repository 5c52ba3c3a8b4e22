/** Emergencies in words that no rule foresees. Port of `symptomchat/runtime/alarm.py`. */

import constants from "../constants.js";
import { compile } from "./python.js";

const { alarmShortest: SHORTEST, alarmLongest: LONGEST, alarmLeast: LEAST } = constants;
const PARTS = compile(constants.alarmParts, "g");
const WORD = /^[\p{L}\p{N}]/u;

const TABLE = Uint32Array.from({ length: 256 }, (_, at) => {
  let value = at;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});
const ENCODER = new TextEncoder();

/** CRC-32 of a text's UTF-8, as zlib computes it. */
export function crc32(text) {
  let sum = 0xffffffff;
  for (const byte of ENCODER.encode(text)) sum = (sum >>> 8) ^ TABLE[(sum ^ byte) & 0xff];
  return (sum ^ 0xffffffff) >>> 0;
}

/** Lower-case words and marks; an apostrophe joins what it stands between. */
export function partsOf(text) {
  return text.toLowerCase().replace(/['\u2019]/g, "").match(PARTS) ?? [];
}

/** Words, neighbouring pairs, pairs with a gap of one, and pieces of words. */
export function pieces(text) {
  const parts = partsOf(text);
  const found = new Set();
  parts.forEach((part, at) => {
    found.add(`w${part}`);
    if (at + 1 < parts.length) found.add(`w${part} ${parts[at + 1]}`);
    if (at + 2 < parts.length) found.add(`s${part} ${parts[at + 2]}`);
    if (!WORD.test(part)) return;
    const whole = [...`<${part}>`];
    for (let length = SHORTEST; length <= LONGEST; length += 1) {
      for (let begin = 0; begin + length <= whole.length; begin += 1) {
        found.add(`c${whole.slice(begin, begin + length).join("")}`);
      }
    }
  });
  return found;
}

/** The classifier of a bundle: `alarm` of its `knowledge.json`. */
export class Alarm {
  constructor({ weights, scale, bias, threshold }) {
    this.weights = Int8Array.from(atob(weights), (char) => char.charCodeAt(0));
    this.scale = scale;
    this.bias = bias;
    this.threshold = threshold;
  }

  /** How likely a text tells of an emergency, 0 to 1. */
  probability(text) {
    const buckets = new Set([...pieces(text)].map((piece) => crc32(piece) % this.weights.length));
    let total = 0;
    for (const bucket of buckets) total += this.weights[bucket];
    const odds = this.bias + (this.scale * total) / Math.sqrt(Math.max(LEAST, buckets.size));
    return 1 / (1 + Math.exp(-Math.max(-30, Math.min(30, odds))));
  }

  /** Whether a text counts as an emergency. */
  rings(text) {
    return this.probability(text) >= this.threshold;
  }
}
