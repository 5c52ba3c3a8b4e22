/**
 * One question in, one answer out, from a bundle alone. Port of `symptomchat/runtime/assistant.py`.
 *
 * `new Assistant(parts).ask(text)` ranks the conditions, generates symptoms and treatments, checks each of them
 * against the knowledge base, calibrates the confidence, flags what may be made up, and puts red flags first.
 */

import constants from "../constants.js";
import { SymptomChatError } from "../errors.js";
import { Grammar } from "../language/grammar.js";
import { BundleTokenizer, INTENTS } from "../language/tokenizer.js";
import { Alarm } from "./alarm.js";
import { Calibrator, statistics } from "./confidence.js";
import { PARTS, Vocabulary } from "./decoding.js";
import { normal, supported } from "./grounding.js";
import { Patient } from "./patient.js";
import { fromPython, isReadable, percent, round, split, strip } from "./python.js";
import { RedFlags, sameWord, urgency } from "./triage.js";

const { longestQuestion: LONGEST_QUESTION, shown: SHOWN, notice: NOTICE, emergency: EMERGENCY, sounds: SOUNDS } = constants;
const { notCounted: NOT_COUNTED } = constants;
const NOT_A_NAME = new Set(constants.notAName);
const ASKED = new RegExp(fromPython(constants.asked), "iu");
const { named: NAMED } = constants;
const ASKING = new RegExp(fromPython(constants.asking), "giu");
const [CASE, TREATED] = ["case", "treated"].map((name) => new RegExp(fromPython(constants[name]), "iu"));

/** The question, or one clear line about what is wrong with it. */
export function checkQuestion(text) {
  if (typeof text !== "string") throw new SymptomChatError(`question: is a ${typeof text}, not text; give a string`);
  if (!strip(text)) throw new SymptomChatError("question: is empty; describe the symptoms in a sentence");
  const chars = [...text];
  if (chars.length > LONGEST_QUESTION) {
    throw new SymptomChatError(
      `question: has ${chars.length} characters, the limit is ${LONGEST_QUESTION}; shorten it to what matters`,
    );
  }
  const strange = chars.filter((char) => !isReadable(char) || char === "\ufffd").length;
  if (strange > chars.length * 0.1) throw new SymptomChatError("question: holds binary data; give plain text");
  return text;
}

/** Answers questions with one bundle: an engine and the parsed JSON files of the bundle. */
export class Assistant {
  #vocabulary;

  constructor({ engine, tokenizer, confidence, knowledge }) {
    this.engine = engine;
    try {
      const cut = new BundleTokenizer(tokenizer);
      this.grammar = new Grammar(cut, engine.questionTokens, engine.answerTokens);
      this.calibrator = new Calibrator(confidence);
      this.conditions = knowledge.conditions;
      this.cased = knowledge.cased;
      this.phrasings = knowledge.phrasings;
      this.redFlags = new RedFlags(knowledge.red_flags, wholeWords(cut));
      this.alarm = new Alarm(knowledge.alarm);
      this.patient = new Patient(
        this.conditions.flatMap((condition) => condition.symptoms),
        this.conditions.map((condition) => condition.name),
        Object.keys(knowledge.names),
      );
      // What a finding is called is no condition, and yet nothing made up: "what is a dry cough?"
      const known = new Set(Object.keys(knowledge.names));
      for (const condition of this.conditions) condition.symptoms.forEach((name) => known.add(normal(name)));
      const findings = new Set(Object.values(knowledge.phrasings).flat().map(normal));
      for (const condition of this.conditions) condition.symptoms.forEach((name) => findings.add(normal(name)));
      const place = new Map(this.conditions.map((condition, at) => [condition.name, at + 1]));
      this.numbers = new Map(
        Object.entries(knowledge.names)
          .filter(([name]) => !findings.has(name))
          .map(([name, canonical]) => [name, place.get(canonical)]),
      );
      this.knownNames = new Map();
      for (const name of known) {
        const words = split(name);
        if (!this.knownNames.has(words.length)) this.knownNames.set(words.length, []);
        this.knownNames.get(words.length).push(words);
      }
    } catch (error) {
      throw new SymptomChatError(`the bundle holds files of another version (${error.message}); build the app again`);
    }
    this.threshold = this.calibrator.threshold;
    if (this.conditions.length + 1 !== this.grammar.conditions) {
      throw new SymptomChatError("knowledge and tokenizer name different conditions; make the bundle again");
    }
  }

  /** Findings and treatments that an answer may name; made for the first answer, since judging needs none. */
  get vocabulary() {
    this.#vocabulary ??= new Vocabulary(this.grammar, this.conditions);
    return this.#vocabulary;
  }

  /** Accept another share of wrong answers among those that are not flagged. */
  accept(risk) {
    try {
      this.threshold = this.calibrator.thresholdFor(risk);
    } catch (error) {
      throw new SymptomChatError(`${error.message}; choose another`);
    }
  }

  /** Answer one question; the fields are those of `Answer.to_json` in Python. */
  async ask(text, id = null) {
    const start = performance.now();
    checkQuestion(text);
    const fired = this.redFlags.check(text);
    const alarmed = this.alarm.rings(text);
    const letters = Array.from(text);
    const leftOut = this.patient.leftOut(text).map(([begin, end]) => strip(letters.slice(begin, end).join("")));
    const question = await this.engine.prefill(this.encode(text));
    try {
      const judged = this.judge(text, question.probabilities, question.novelty);
      const { probabilities, none, flagged } = judged;
      const order = Array.from(this.conditions.keys()).sort(
        (a, b) => probabilities[1 + b] - probabilities[1 + a] || a - b,
      );
      const ranked = order
        .slice(0, SHOWN)
        .map((i) => ({ name: this.conditions[i].name, probability: round(probabilities[1 + i], 4) }));
      const { intent, symptoms, treatments } = await this.#speak(question, none ? 0 : order[0] + 1, this.#intent(text));
      const reasons = this.#reasons(judged, ranked, [...symptoms, ...treatments]);
      let level = urgency(
        order.slice(0, 50).map((i) => [this.conditions[i].urgency, probabilities[1 + i]]),
        fired,
        !none,
        alarmed,
      );
      if ((intent === "symptoms" || intent === "treatment") && !fired.length && !alarmed && !none) {
        level = this.conditions[order[0]].urgency;
      }
      const likely = order
        .slice(0, SHOWN)
        .filter((i, at) => at === 0 || probabilities[1 + i] >= this.calibrator.setLimit)
        .map((i) => this.conditions[i].name);
      return {
        id,
        intent: none ? "none" : intent,
        conditions: ranked,
        likely: none ? [] : likely,
        symptoms,
        treatments,
        triage: level,
        red_flags: fired.map((flag) => flag.name),
        confidence: round(judged.confidence, 4),
        flagged,
        reasons: flagged ? reasons : [],
        reply: this.#reply({ fired, alarmed, none, flagged, reasons, ranked, symptoms, treatments, level, intent, leftOut }),
        milliseconds: round(performance.now() - start, 2),
        left_out: leftOut,
      };
    } finally {
      question.release();
    }
  }

  /** Token ids of what the model reads of a question: the patient's own clauses. */
  encode(text) {
    return this.grammar.question(this.patient.own(text));
  }

  /** How sure the model is of a question, before anything is generated. */
  judge(text, raw, novelty) {
    const number = this.named(text);
    if (number !== null) {
      // A name is no guess: what the ranking makes of its words keeps a small share.
      raw = raw.map((p) => p * (1 - NAMED));
      raw[number] += NAMED;
    }
    const ids = this.encode(text);
    const unknown = this.grammar.unknownShare(ids);
    const features = statistics(raw, novelty, unknown, ids.length);
    const probabilities = this.calibrator.soften(raw);
    const none = probabilities[0] >= probabilities.subarray(1).reduce((a, b) => Math.max(a, b));
    const confidence = this.calibrator.confidence(features);
    const stranger = this.#unknownName(text);
    // A condition that is asked for by a name nobody knows is never answered unmarked, however sure the model is.
    const flagged = none || stranger !== null || confidence < this.threshold;
    return { probabilities, features, confidence, none, stranger, unknown, novelty, flagged };
  }

  /** Generate intent, symptoms and treatments after a condition token (0 = none, of which nothing is told). */
  async #speak(question, number, asked) {
    if (number === 0) return { intent: "none", symptoms: [], treatments: [] };
    const { grammar } = this;
    const record = this.conditions[number - 1];
    const guide = this.vocabulary.guide(record, undefined, asked);
    const tokens = [];
    const logs = [];
    for await (const [token, log] of this.engine.generate(question, grammar.none + number, grammar.end, guide)) {
      tokens.push(token);
      logs.push(log);
    }
    const claims = [[], []];
    for (const { part, text, begin, end } of guide.named) {
      const mean = logs.slice(begin, end).reduce((a, b) => a + b, 0) / (end - begin);
      const grounded = supported(text, record[PARTS[part]], this.phrasings) !== null;
      claims[part].push({ text, confidence: round(Math.exp(mean), 4), grounded });
    }
    const told = INTENTS[grammar.intents.indexOf(tokens[0])];
    const intent = INTENTS.slice(0, 3).includes(told) ? told : "diagnose";
    return { intent, symptoms: claims[0], treatments: claims[1] };
  }

  /**
   * Number (from 1) of the condition that a question asks about by name, without telling a case; or null. A name that
   * is a finding's too ("back pain") may be a complaint, so it names nothing here.
   */
  named(text) {
    const alone = normal(text);
    const name = this.numbers.has(alone) ? alone : askedName(text);
    if (name === null || CASE.test(text.replace(ASKING, " "))) return null;
    const words = split(normal(name));
    if (this.numbers.has(words.join(" "))) return this.numbers.get(words.join(" "));
    const alike = new Set();
    for (const known of this.knownNames.get(words.length) ?? []) {
      const number = this.numbers.get(known.join(" "));
      if (number !== undefined && known.every((word, at) => sameWord(words[at], word))) alike.add(number);
    }
    return alike.size === 1 ? [...alike][0] : null;
  }

  /** What a question by name asks for; null where the model is to say what it is asked. */
  #intent(text) {
    if (this.named(text) === null) return null;
    return TREATED.test(text) ? "treatment" : "symptoms";
  }

  /** The condition that a question asks about by name, where that is no name of a known one; or null. */
  #unknownName(text) {
    const name = askedName(text);
    if (name === null) return null;
    const words = split(normal(name));
    if (!words.length || words.length > 5 || words.some((word) => NOT_A_NAME.has(word))) return null;
    // Any run of its words may be a known name, also misspelt: "type 2 diabetis in adults".
    for (let length = words.length; length > 0; length -= 1) {
      const names = this.knownNames.get(length) ?? [];
      for (let begin = 0; begin + length <= words.length; begin += 1) {
        if (names.some((known) => known.every((word, at) => sameWord(words[begin + at], word)))) return null;
      }
    }
    return name;
  }

  /** Why an answer is doubtful, in words. */
  #reasons(judged, ranked, claims) {
    const reasons = [];
    if (judged.stranger !== null) reasons.push(`I do not know a condition called ${judged.stranger}.`);
    else if (judged.none) reasons.push("This fits nothing that I know.");
    if (judged.novelty > this.calibrator.noveltyLimit) {
      reasons.push("Your words are unlike anything that I learned.");
    }
    if (judged.unknown > 0.2) reasons.push("Many of these words or characters are unknown to me.");
    if (ranked.length > 1 && !judged.none && ranked[1].probability > 0.6 * ranked[0].probability) {
      reasons.push(`Two conditions fit about equally: ${ranked[0].name} and ${ranked[1].name}.`);
    }
    const madeUp = claims.filter((claim) => !claim.grounded).map((claim) => claim.text);
    if (madeUp.length) reasons.push(`Not in my sources: ${madeUp.join(", ")}.`);
    if (!reasons.length && judged.confidence < this.threshold) {
      reasons.push("What you describe fits several conditions; I cannot tell them apart from this.");
    }
    return reasons;
  }

  /** What a person reads. */
  #reply({ fired, alarmed, none, flagged, reasons, ranked, symptoms, treatments, level, intent, leftOut }) {
    const lines = [];
    if (fired.length) lines.push(EMERGENCY, ...fired.map((flag) => `${flag.name}: ${flag.advice}`));
    else if (alarmed) lines.push(SOUNDS);
    if (leftOut.length) lines.push(`${NOT_COUNTED}: ${leftOut.join(" ")}`);
    if (none) {
      lines.push(["I cannot answer this.", ...reasons].join(" "));
      lines.push("If you feel ill, describe what you feel and since when, or ask a doctor.");
      return [...lines, NOTICE].join("\n");
    }
    if (flagged) lines.push(["I am not sure; this may be made up.", ...reasons].join(" "));
    const first = this.conditions.find((condition) => condition.name === ranked[0].name);
    if (intent === "diagnose") {
      const several = ranked.slice(0, 3).map((c) => `${c.name} (${percent(c.probability)})`);
      lines.push(`What you describe may fit: ${several.join(", ")}.`);
    }
    const heading = intent === "diagnose" ? "Typical of" : "Symptoms of";
    const marked = (claims) =>
      claims.map((claim) => (claim.grounded ? claim.text : `${claim.text} (not in my sources)`)).join(", ");
    const parts = [];
    if (symptoms.length) parts.push(`${heading} ${first.name}: ${marked(symptoms)}.`);
    if (treatments.length) parts.push(`Usual treatment: ${marked(treatments)}.`);
    lines.push(...(intent === "treatment" ? parts.reverse() : parts));
    if (level === "emergency" && !fired.length && !alarmed) lines.push("This can be an emergency: get medical help now.");
    else if (level === "see_doctor") lines.push("See a doctor about this.");
    else if (level === "self_care" && first.self_care.length) lines.push(`Self-care: ${first.self_care.join(", ")}.`);
    if (first.emergency_when && level !== "emergency" && !first.emergency_when.startsWith("never")) {
      lines.push(`When it becomes an emergency: ${first.emergency_when}.`);
    }
    return [...lines, NOTICE].join("\n");
  }
}

/** Words that a vocabulary holds in one piece: ordinary words, which are no misspellings of others. */
export function wholeWords(tokenizer) {
  return new Set([...tokenizer.vocabulary].filter((word) => /^\p{L}+$/u.test(word)));
}

/** The name of the condition that a question asks about, where its form shows one; or null. */
export function askedName(text) {
  const match = ASKED.exec(text);
  const group = match?.slice(1).find((part) => part);
  return group === undefined ? null : strip(group);
}
