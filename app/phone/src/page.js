/**
 * The page: takes questions, shows answers, keeps two settings. The conversation lives in memory alone; nothing is
 * sent anywhere. `window.symptomchat` is for tests and benchmarks: `ready`, `ask(text, {risk})`, `timings()`.
 */

import constants from "./constants.js";
import { SymptomChatError } from "./errors.js";
import { Model } from "./model.js";
import { keepOffline } from "./offline.js";
import { percent } from "./runtime/python.js";
import { answer, element, problem, question } from "./view.js";

const REGIONS = constants.regions;

const at = (id) => document.getElementById(id);
const [form, field, send, state, bar, talk, start] =
  ["form", "text", "send", "state", "progress", "talk", "start"].map(at);
const [sheet, region, risk, save, clear] = ["settings", "region", "risk", "save", "clear"].map(at);
const turns = [];
const timings = {};
let model;

function remember(select) {
  try {
    const kept = localStorage.getItem(select.id);
    if (kept !== null && [...select.options].some((option) => option.value === kept)) select.value = kept;
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

async function ask(text, { risk: share } = {}) {
  const result = await model.ask(text, share);
  timings.last = result.measured;
  return result.answer;
}

async function submit(text) {
  if (!text.trim() || send.disabled) return;
  start.hidden = true;
  send.disabled = true;
  field.value = "";
  fit();
  talk.append(question(text));
  const wait = element("p", { class: "wait", role: "status" }, "Thinking …");
  talk.append(wait);
  show(wait);
  let shown;
  let told;
  try {
    const result = await ask(text, { risk: Number(risk.value) });
    shown = answer(result, REGIONS[region.value]);
    told = result.reply;
  } catch (error) {
    told = error instanceof SymptomChatError ? error.message : `the model failed (${error.message}); load the page again`;
    shown = problem(told);
  }
  wait.replaceWith(shown);
  turns.push([text, told]);
  show(shown.previousElementSibling);
  send.disabled = false;
  save.disabled = false;
  clear.disabled = false;
  field.focus();
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

function saveTalk() {
  const lines = ["SymptomChat. Information, not diagnosis.", ""];
  for (const [asked, told] of turns) lines.push(`> ${asked}`, "", told, "");
  const url = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/plain" }));
  element("a", { href: url, download: "symptomchat.txt" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function clearTalk() {
  sheet.open = false;
  turns.length = 0;
  talk.replaceChildren();
  start.hidden = false;
  save.disabled = true;
  clear.disabled = true;
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
  document.addEventListener("click", (event) => {
    if (!sheet.contains(event.target)) sheet.open = false;
  });
  save.addEventListener("click", saveTalk);
  clear.addEventListener("click", clearTalk);
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
  model = new Model();
  const known = await model.open();
  settings(known);
  timings.load = performance.now();
  Object.assign(timings, known.milliseconds);
  state.textContent = `${known.conditions} conditions known. ${offline ? "Works offline." : "Needs a network to start."}`;
  for (const control of document.querySelectorAll("[data-ready]")) control.disabled = false;
  field.focus();
}

const ready = open();
ready.catch((error) => {
  state.textContent = "";
  talk.append(problem(`SymptomChat cannot start: ${error.message}`));
});
window.symptomchat = { ready, ask, timings: () => structuredClone(timings) };
