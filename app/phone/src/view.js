/**
 * What a turn, an open question and a condition look like. In: what the model's thread says of them, and the emergency
 * number. Out: elements. An answer stands in this order: red flags, the mark of doubt with its reasons, what the
 * sources say of a condition that was asked for, the ranked conditions as bars, the claims, what was understood, what
 * to do.
 *
 * Every word of the user or the model enters the page as text, never as markup.
 */

import constants from "./constants.js";
import { percent } from "./runtime/python.js";

const TRIAGE = {
  emergency: "Emergency: get help now",
  see_doctor: "See a doctor about this",
  self_care: "Self-care may be enough",
  unknown: "Urgency not known",
};
/** Shapes beside the words, so that no meaning hangs on a colour alone (24 × 24). */
const SHAPES = {
  alert: "M8 2h8l6 6v8l-6 6H8l-6-6V8zM12 7v6M12 16.5v.5",
  doubt: "M12 3 22 20H2zM12 10v4.5M12 17v.5",
  emergency: "M8 2h8l6 6v8l-6 6H8l-6-6V8zM12 7v6M12 16.5v.5",
  see_doctor: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 8v8M8 12h8",
  self_care: "M3 11 12 4l9 7M6 9.5V20h12V9.5M9.5 15l2 2 3.5-4",
  unknown: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9.7 9.5a2.4 2.4 0 1 1 3.4 2.2c-.8.4-1.1.9-1.1 1.8M12 16.5v.5",
  yes: "m4 12.5 5.5 5.5L20 7",
  no: "M6 6l12 12M18 6 6 18",
};
const { sounds: SOUNDS, notCounted: NOT_COUNTED } = constants;
const BARS = 5;
const TOLD = 8;
const { matters: MATTERS } = constants.explain;
const { answers: ANSWERS, mostQuestions: MOST_QUESTIONS } = constants.inquiry;

/** An element with attributes and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shape(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "shape");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

/** What the user said; words that mattered are marked once they are known. */
export function question(text, spans = []) {
  const parts = [];
  let at = 0;
  for (const { begin, end, effect } of spans) {
    if (Math.abs(effect) < MATTERS) continue;
    const kind = effect > 0 ? "for" : "against";
    const mark = element("mark", { class: kind }, text.slice(begin, end), element("span", { class: "hidden" }, ` (speaks ${kind} it)`));
    parts.push(text.slice(at, begin), mark);
    at = end;
  }
  return element("div", { class: "question" }, element("span", { class: "hidden" }, "You: "), ...parts, text.slice(at));
}

/** A problem that the user can mend, in one line. */
export function problem(text) {
  return element("p", { class: "panel problem", role: "alert" }, text);
}

/** What was done with a message, in words. */
export function note(text) {
  return element("p", { class: "note small" }, text);
}

/** The panels of one turn's answer. */
export function answer(turn, number) {
  const result = turn.answer;
  const parts = [];
  if (result.red_flags.length || sounds(result)) parts.push(redFlags(turn.advice, number));
  // Conversations that an earlier version kept have no such clauses.
  if (result.left_out?.length) parts.push(note(`${NOT_COUNTED}: ${result.left_out.join(" ")}`));
  if (result.flagged) parts.push(doubt(result.reasons));
  if (turn.about && turn.first) parts.push(sources(turn.first));
  if (result.intent === "none") {
    parts.push(element("p", {}, "I cannot answer this. If you feel ill, describe what you feel and since when, or ask a doctor."));
  } else {
    const [{ name }] = result.conditions;
    parts.push(ranking(result));
    parts.push(...claims(`Symptoms of ${name}, as generated`, result.symptoms), ...claims("Treatment, as generated", result.treatments));
  }
  parts.push(...tools(turn));
  parts.push(urgency(turn, number));
  return parts;
}

/** Whether no rule names an emergency and the classifier hears one: the reply then says so. */
function sounds({ triage, reply }) {
  return triage === "emergency" && reply.split("\n").includes(SOUNDS);
}

function redFlags(advice, number) {
  const digits = /^\d+$/.test(number);
  const call = digits ? element("a", { href: `tel:${number}`, class: "call" }, `Call ${number}`) : `Call ${number}`;
  return element(
    "div",
    { class: "panel alert", role: "alert" },
    element("p", { class: "title" }, shape("alert"), element("strong", {}, advice.length ? "This may be an emergency. Get help now." : "This sounds like an emergency.")),
    element("p", { class: "number" }, call),
    ...advice.map(([name, text]) => element("p", {}, element("strong", {}, name), text ? `: ${text}` : "")),
    ...(advice.length ? [] : [element("p", {}, "If you are not sure that it is none, call or get medical help now.")]),
  );
}

function doubt(reasons) {
  return element(
    "div",
    { class: "panel doubt" },
    element("p", { class: "title" }, shape("doubt"), element("strong", {}, "May be made up")),
    element("ul", {}, ...reasons.map((reason) => element("li", {}, reason))),
  );
}

/** A name that opens what is known of a condition. */
function link(name) {
  return element("button", { type: "button", class: "link", "data-condition": name }, name);
}

function sources({ name, symptoms, treatments }) {
  const lines = [element("p", {}, `Findings, the most typical first: ${symptoms.slice(0, TOLD).join(", ")}.`)];
  if (treatments.length) lines.push(element("p", {}, `Treatment: ${treatments.join(", ")}.`));
  return element("section", { class: "sources" }, element("h2", {}, link(name), ", from my sources"), ...lines);
}

/** A row of a list of shares: a name, its share in words and as a bar. */
function row(name, share) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span"));
  bar.firstChild.style.inlineSize = `${100 * share}%`;
  return element("li", {}, element("span", { class: "name" }, name), element("span", { class: "share" }, percent(share)), bar);
}

function ranking({ conditions, likely }) {
  const rows = conditions.slice(0, BARS).map(({ name, probability }) => row(link(name), probability));
  const parts = [element("h2", {}, "What may fit"), element("ol", { class: "bars" }, ...rows)];
  if (likely.length > 1) {
    parts.push(
      element("details", {}, element("summary", {}, `Most likely one of these ${likely.length}`), element("p", {}, likely.join(", "))),
    );
  }
  return element("section", {}, ...parts);
}

function claims(title, list) {
  if (!list.length) return [];
  const items = list.map(({ text, grounded }) =>
    grounded
      ? element("li", {}, text)
      : element("li", { class: "unsupported" }, shape("doubt"), text, element("em", {}, " (not in my sources)")));
  return [element("section", {}, element("h2", {}, title), element("ul", { class: "claims" }, ...items))];
}

/** What was understood of the words, and which of them mattered. */
function tools({ heard, answer: { intent }, kind }) {
  const parts = [];
  // "no fever" is a finding of its own and denies fever; said once it is enough.
  const twice = (name) => heard.some(([other, present]) => !present && name === `no ${other}`);
  const once = heard.filter(([name]) => !twice(name));
  if (once.length) {
    const items = once.map(([name, present]) => {
      const mark = present ? "yes" : "no";
      return element("li", {}, shape(mark), element("span", { class: "hidden" }, present ? "present: " : "not present: "), name);
    });
    parts.push(element("details", {}, element("summary", {}, "What I understood"), element("ul", { class: "claims" }, ...items)));
  }
  // A reply's words are the question's, and where nothing fits there is no condition that words could speak for.
  if (intent !== "none" && kind !== "reply") {
    parts.push(element("button", { type: "button", class: "quiet", "data-explain": "" }, "Which words mattered?"));
  }
  return parts.length ? [element("div", { class: "tools" }, ...parts)] : [];
}

/** What the marks in the user's message say. */
export function legend(name, spans) {
  if (!spans.some(({ effect }) => Math.abs(effect) >= MATTERS)) {
    return element("p", { class: "small", role: "status" }, "No single word decided this.");
  }
  const mark = (kind, text) => element("mark", { class: kind }, text);
  return element("p", { class: "small", role: "status" }, "Above, ", mark("for", "marked so"), ` speaks for ${name}, `, mark("against", "so"), " against it.");
}

function urgency({ answer: result, first }, number) {
  const { triage, confidence, milliseconds, intent } = result;
  const lines = [];
  if (triage === "emergency") lines.push(`Call ${number}.`);
  if (intent !== "none" && first) {
    if (triage === "self_care" && first.self_care.length) lines.push(`What helps: ${first.self_care.join(", ")}.`);
    const when = first.emergency_when;
    if (when && triage !== "emergency" && !when.startsWith("never")) lines.push(`${first.name} becomes an emergency ${when}.`);
  }
  return element(
    "div",
    { class: `urgency ${triage}` },
    element("p", { class: "title" }, shape(triage), element("strong", {}, TRIAGE[triage])),
    ...lines.map((line) => element("p", {}, line)),
    element("p", { class: "small" }, `confidence ${percent(confidence)} · ${Math.round(milliseconds)} ms on this device`),
  );
}

/** The open question with its answers, or what stays in view in an emergency; nothing where there is neither. */
export function standing({ question: open, redFlags: flags }, number) {
  if (flags.length) {
    const digits = /^\d+$/.test(number);
    const call = digits ? element("a", { href: `tel:${number}` }, `Call ${number}`) : `Call ${number}`;
    return [element("p", { class: "alarm" }, shape("alert"), element("strong", {}, "Emergency? ", call), ` ${flags.join("; ")}`)];
  }
  if (!open) return [];
  const buttons = ANSWERS.map((value) =>
    element("button", { type: "button", "data-reply": value }, value[0].toUpperCase() + value.slice(1)));
  return [
    element("p", { class: "small" }, `To tell them apart · question ${open.number} of at most ${MOST_QUESTIONS}`),
    element("p", { id: "asked" }, element("strong", {}, open.text)),
    ...(open.ways.length ? [element("p", { class: "small ways" }, `People also say: ${open.ways.join(" · ")}`)] : []),
    element("div", { class: "replies", role: "group", "aria-labelledby": "asked" }, ...buttons),
  ];
}

/** All that is known of a condition, for its sheet. */
export function condition(record, sources) {
  const { aliases, urgency: level, emergency_when: when, treatments, self_care: selfCare, confusable } = record;
  const parts = [];
  if (aliases.length) parts.push(element("p", { class: "small" }, `Also called: ${aliases.join("; ")}`));
  const urgent = [element("p", { class: "title" }, shape(level), element("strong", {}, TRIAGE[level]))];
  if (when) urgent.push(element("p", {}, when.startsWith("never") ? "It is never an emergency by itself." : `An emergency ${when}.`));
  parts.push(element("div", { class: `urgency ${level}` }, ...urgent));
  parts.push(section("Findings", ...findings(record)));
  parts.push(section("Treatment", list(treatments)), section("Self-care", list(selfCare)));
  const others = confusable.map(({ name, difference, known }) =>
    element("li", {}, known ? link(name) : element("strong", {}, name), element("p", {}, `What tells it apart: ${difference}.`)));
  parts.push(section("Mistaken for", others.length ? element("ul", { class: "others" }, ...others) : none()));
  const from = sources.length ? `From ${sources.join(", ")}. ` : "";
  parts.push(element("p", { class: "small" }, `${from}Not reviewed by physicians. Information, not diagnosis.`));
  return parts;
}

function section(title, ...parts) {
  return element("section", {}, element("h3", {}, title), ...parts);
}

const none = () => element("p", { class: "small" }, "The sources list none.");

function list(items) {
  return items.length ? element("ul", {}, ...items.map((item) => element("li", {}, item))) : none();
}

/** Findings with how often, those that were spoken of marked. */
function findings({ symptoms, shares, known }) {
  const said = (name) => {
    if (!Object.hasOwn(known, name)) return [name];
    return [name, element("em", {}, known[name] ? " · you have it" : " · you do not have it")];
  };
  if (!shares) return [element("ol", {}, ...symptoms.map((name) => element("li", {}, ...said(name))))];
  const rows = symptoms.map((name, at) => row(element("span", {}, ...said(name)), shares[at]));
  const how = "How many of those who have the condition show each, as the sources estimate it.";
  return [element("p", { class: "small" }, how), element("ul", { class: "bars" }, ...rows)];
}
