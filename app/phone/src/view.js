/**
 * What an answer looks like. In: an answer and the emergency number. Out: elements, in this order: red flags, the
 * mark of doubt with its reasons, the reply, the ranked conditions as bars, the claims, the urgency.
 *
 * Every word of the user or the model enters the page as text, never as markup.
 */

import { percent } from "./runtime/python.js";

const TRIAGE = {
  emergency: "Emergency: get help now",
  see_doctor: "See a doctor",
  self_care: "Self-care may be enough",
  unknown: "Not known",
};
/** Shapes beside the words, so that no meaning hangs on a colour alone (24 × 24). */
const SHAPES = {
  alert: "M8 2h8l6 6v8l-6 6H8l-6-6V8zM12 7v6M12 16.5v.5",
  doubt: "M12 3 22 20H2zM12 10v4.5M12 17v.5",
  emergency: "M8 2h8l6 6v8l-6 6H8l-6-6V8zM12 7v6M12 16.5v.5",
  see_doctor: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M12 8v8M8 12h8",
  self_care: "M3 11 12 4l9 7M6 9.5V20h12V9.5M9.5 15l2 2 3.5-4",
  unknown: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9.7 9.5a2.4 2.4 0 1 1 3.4 2.2c-.8.4-1.1.9-1.1 1.8M12 16.5v.5",
};

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

/** The user's question. */
export function question(text) {
  return element("div", { class: "question" }, element("span", { class: "hidden" }, "You: "), text);
}

/** A problem that the user can mend, in one line. */
export function problem(text) {
  return element("p", { class: "panel problem", role: "alert" }, text);
}

/** The panels of one answer. */
export function answer(result, number) {
  const parts = [];
  if (result.red_flags.length) parts.push(redFlags(result.red_flags, number));
  if (result.flagged) parts.push(doubt(result.reasons));
  const lines = result.reply.split("\n").map((line) => element("p", {}, line));
  parts.push(element("div", { class: "reply" }, ...lines));
  if (result.intent !== "none") {
    parts.push(ranking(result));
    parts.push(...claims("Symptoms", result.symptoms), ...claims("Treatment", result.treatments));
  }
  parts.push(urgency(result));
  return element("article", { class: "answer", "aria-label": "Answer" }, ...parts);
}

function redFlags(names, number) {
  const digits = /^\d+$/.test(number);
  const call = digits ? element("a", { href: `tel:${number}`, class: "call" }, `Call ${number}`) : `Call ${number}`;
  return element(
    "div",
    { class: "panel alert", role: "alert" },
    element("p", { class: "title" }, shape("alert"), element("strong", {}, "This may be an emergency. Get help now.")),
    element("p", { class: "number" }, call),
    element("p", {}, names.join("; ")),
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

function ranking({ conditions, likely }) {
  const rows = conditions.slice(0, 5).map(({ name, probability }) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span"));
    bar.firstChild.style.inlineSize = `${100 * probability}%`;
    return element("li", {}, element("span", { class: "name" }, name), element("span", { class: "share" }, percent(probability)), bar);
  });
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

function urgency({ triage, confidence, milliseconds }) {
  return element(
    "p",
    { class: `urgency ${triage}` },
    shape(triage),
    element("strong", {}, TRIAGE[triage]),
    element("span", { class: "small" }, `confidence ${percent(confidence)} · ${Math.round(milliseconds)} ms on this device`),
  );
}
