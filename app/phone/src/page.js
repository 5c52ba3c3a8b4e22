/**
 * The page: takes messages, shows turns, asks the open question, keeps the conversation and two settings on this
 * device. Nothing is sent anywhere. `window.symptomchat` is for tests and benchmarks: `ready`, `ask(text, {risk})`
 * outside the conversation, `say(text)`, `reply(value)` and `newTopic()` within it, `timings()`.
 */

import constants from "./constants.js";
import { SymptomChatError } from "./errors.js";
import { follow, forget, keep, kept } from "./keep.js";
import { Model } from "./model.js";
import { keepOffline } from "./offline.js";
import { percent } from "./runtime/python.js";
import * as view from "./view.js";

const REGIONS = constants.regions;

const at = (id) => document.getElementById(id);
const [form, field, send, state, bar, talk, start, dock, topic] =
  ["form", "text", "send", "state", "progress", "talk", "start", "dock", "topic"].map(at);
const [sheet, region, risk, save, clear] = ["settings", "region", "risk", "save", "clear"].map(at);
const [profile, profileName, profileBody, back] = ["condition", "condition-name", "condition-body", "condition-back"].map(at);
const timings = {};
/** Turns as the model's thread gave them, each with its elements. */
let shown = [];
/** What the conversation stands at. */
let now = { question: null, redFlags: [], open: false };
let busy = false;
/** What another tab did meanwhile: its state, or null once it has forgotten; undefined where it did nothing. */
let elsewhere;
let sources = [];
/** Names of the conditions whose sheets were opened one from the other. */
let trail = [];
let model;

function remember(select) {
  try {
    const before = localStorage.getItem(select.id);
    if (before !== null && [...select.options].some((option) => option.value === before)) select.value = before;
    select.addEventListener("change", () => localStorage.setItem(select.id, select.value));
  } catch {
    // A browser that keeps nothing still answers; the setting holds until the page is closed.
  }
}

function settings({ risk: usual, risks }) {
  risk.append(...risks.map((share) => new Option(percent(share), String(share))));
  risk.value = String(usual);
  remember(risk);
}

const number = () => REGIONS[region.value];
const share = () => Number(risk.value);

async function ask(text, { risk: accepted } = {}) {
  const result = await model.ask(text, accepted);
  timings.last = result.measured;
  return result.answer;
}

/** The elements of a turn, put at the end of the conversation or in the place of an earlier form of it. */
function put(turn, finished, before) {
  const entry = before ?? { said: view.question(turn.said), parts: [] };
  entry.turn = turn;
  if (!before) talk.append(entry.said);
  if (turn.kind === "error") {
    entry.parts = [view.problem(turn.note)];
  } else {
    entry.note ??= turn.note ? [view.note(turn.note)] : [];
    if (turn.answer) {
      entry.card ??= view.element("article", { "aria-label": "Answer" });
      entry.card.className = finished ? "card answer" : "card growing";
      entry.card.setAttribute("aria-busy", String(!finished));
      entry.card.replaceChildren(...view.answer(turn, number()));
    }
    entry.parts = [...entry.note, ...(entry.card ? [entry.card] : [])];
  }
  if (entry.parts.some((part) => !part.isConnected)) entry.said.after(...entry.parts);
  return entry;
}

/** Whatever may be pressed now. */
function enable() {
  for (const control of document.querySelectorAll("[data-ready], [data-reply], [data-explain]")) control.disabled = busy || !model;
  topic.disabled = busy || !now.open;
  save.disabled = busy || !shown.length;
  clear.disabled = busy || !shown.length;
}

/** Show what the conversation stands at: the open question, or what stays in view in an emergency. */
function stand(standing) {
  now = standing;
  dock.replaceChildren(...view.standing(now, number()));
  dock.hidden = !dock.childElementCount;
  start.hidden = shown.length > 0;
  enable();
}

/** One turn, from what was said to what is kept; `speak` asks the model's thread for it. */
async function take(said, speak) {
  busy = true;
  start.hidden = true;
  state.textContent = "";
  const wait = view.element("p", { class: "wait", role: "status" }, "Thinking …");
  const bubble = view.question(said);
  talk.append(bubble, wait);
  enable();
  show(bubble);
  let entry;
  const grow = (turn, finished) => {
    if (!entry) {
      bubble.remove();
      wait.remove();
    }
    entry = put(turn, finished, entry);
  };
  let result;
  try {
    result = await speak((turn) => grow(turn, false));
    grow(result.turn, true);
    entry.at = result.at;
    shown.push(entry);
    timings.last = result.measured;
  } catch (error) {
    const told = error instanceof SymptomChatError ? error.message : `the model failed (${error.message}); load the page again`;
    wait.replaceWith(view.problem(told));
  }
  busy = false;
  if (elsewhere !== undefined) await adopt(elsewhere);
  else if (result) {
    stand(result);
    if (!keep(result.state)) state.textContent = "This browser keeps nothing more: the conversation ends with the page.";
  } else enable();
  show(entry?.said ?? bubble);
  return result;
}

const say = (text) => take(text, (grow) => model.say(text, share(), grow));
const reply = (value) => take(`${value[0].toUpperCase()}${value.slice(1)}`, (grow) => model.reply(value, share(), grow));

async function submit(text) {
  if (!text.trim() || busy || send.disabled) return;
  field.value = "";
  fit();
  await say(text);
  field.focus({ preventScroll: true });
}

async function press(value) {
  if (busy) return;
  await reply(value);
  // The keyboard stays where it was: on the next question, or in the field where none is asked.
  (dock.querySelector("[data-reply]") ?? field).focus({ preventScroll: true });
}

/** Scroll the conversation until an element stands at its top, or as near to it as can be. */
function show(turn) {
  talk.parentElement.scrollTo({ top: turn.offsetTop - 8 });
}

/** The field is as high as its text, within bounds that the style sheet sets. */
function fit() {
  field.style.blockSize = "auto";
  field.style.blockSize = `${field.scrollHeight + 2}px`;
}

/** Show a kept conversation in place of the one on the page, or none. */
async function adopt(kept) {
  elsewhere = undefined;
  const { turns = [], ...standing } = kept ? await model.restore(kept) : await model.clear();
  talk.replaceChildren();
  shown = turns.map((turn, place) => Object.assign(put(turn, true), { at: place }));
  stand(standing);
  if (shown.length) show(shown.at(-1).said);
}

async function leaveTopic() {
  stand(await model.newTopic());
  keep(now.state);
  talk.append(view.element("p", { class: "rule small", role: "status" }, "New topic"));
  talk.parentElement.scrollTo({ top: talk.scrollHeight });
  field.focus({ preventScroll: true });
}

/** Mark the words of a message that mattered, and say what the marks mean. */
async function explain(button) {
  const entry = shown.find(({ card }) => card?.contains(button));
  if (!entry || busy) return;
  busy = true;
  enable();
  const progress = (done) => {
    button.textContent = `Looking at each word: ${percent(done)}`;
  };
  progress(0);
  try {
    const spans = await model.explain(entry.at, share(), progress);
    const marked = view.question(entry.turn.said, spans);
    entry.said.replaceWith(marked);
    entry.said = marked;
    const legend = view.legend(entry.turn.answer.conditions[0].name, spans);
    button.replaceWith(legend);
    show(marked);
  } catch (error) {
    button.textContent = `That failed (${error.message})`;
  }
  busy = false;
  enable();
}

async function openProfile(name) {
  const record = await model.condition(name);
  trail.push(name);
  back.hidden = trail.length < 2;
  profileName.textContent = record.name;
  profileBody.replaceChildren(...view.condition(record, sources));
  profileBody.scrollTo({ top: 0 });
  if (!profile.open) profile.showModal();
  profileName.focus();
}

function saveTalk() {
  const lines = ["SymptomChat. Information, not diagnosis.", ""];
  for (const { turn } of shown) {
    lines.push(`> ${turn.said}`, "", ...[turn.note, turn.answer?.reply].filter((part) => part), "");
  }
  const url = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/plain" }));
  view.element("a", { href: url, download: "symptomchat.txt" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function clearTalk() {
  sheet.open = false;
  forget();
  await adopt(null);
  state.textContent = "Forgotten: nothing of the conversation is left on this device.";
  field.focus();
}

function listen() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(field.value);
  });
  field.addEventListener("input", fit);
  field.addEventListener("keydown", (event) => {
    // Enter sends and Shift+Enter breaks the line; an input method's own Enter does neither.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit(field.value);
    }
  });
  for (const example of start.querySelectorAll("button")) {
    example.addEventListener("click", () => submit(example.textContent.trim()));
  }
  sheet.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !sheet.open) return;
    sheet.open = false;
    sheet.firstElementChild.focus();
  });
  document.addEventListener("click", ({ target }) => {
    if (!sheet.contains(target)) sheet.open = false;
    const { reply: value, condition: name, explain: words } = target.closest("button")?.dataset ?? {};
    if (value !== undefined) press(value);
    else if (name !== undefined) openProfile(name);
    else if (words !== undefined) explain(target.closest("button"));
    // A press on the dimmed page around the sheet closes it.
    else if (target === profile) profile.close();
  });
  at("condition-close").addEventListener("click", () => profile.close());
  back.addEventListener("click", () => {
    const [before] = trail.splice(-2);
    openProfile(before);
  });
  profile.addEventListener("close", () => {
    trail = [];
  });
  region.addEventListener("change", () => {
    for (const { turn, card } of shown) if (card) card.replaceChildren(...view.answer(turn, number()));
    stand(now);
  });
  topic.addEventListener("click", leaveTopic);
  save.addEventListener("click", saveTalk);
  clear.addEventListener("click", clearTalk);
  follow((kept) => {
    elsewhere = kept;
    if (!busy && model) adopt(kept);
  });
}

async function open() {
  region.append(...Object.keys(REGIONS).map((name) => new Option(name)));
  remember(region);
  listen();
  const offline = await keepOffline((share) => {
    bar.hidden = false;
    bar.value = share;
    state.textContent = `Fetching the app once: ${percent(share)}`;
  });
  bar.hidden = true;
  state.textContent = "Opening the model …";
  const opening = new Model();
  const known = await opening.open();
  model = opening;
  sources = known.sources;
  settings(known);
  timings.load = performance.now();
  Object.assign(timings, known.milliseconds);
  state.textContent = `${known.conditions} conditions known. ${offline ? "Works offline." : "Needs a network to start."}`;
  await takeUp();
  enable();
  field.focus({ preventScroll: true });
}

/** The conversation that this device kept; one that cannot be read is removed, and the page says so. */
async function takeUp() {
  try {
    const before = kept();
    if (before) await adopt(before);
  } catch (error) {
    forget();
    await adopt(null);
    state.textContent = error.message;
  }
}

const ready = open();
ready.catch((error) => {
  state.textContent = "";
  talk.append(view.problem(`SymptomChat cannot start: ${error.message}`));
});
window.symptomchat = { ready, ask, say, reply, newTopic: leaveTopic, timings: () => structuredClone(timings) };
