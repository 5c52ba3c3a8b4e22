/**
 * A bundle, fetched from the app's own `model/` folder. Port of `verify` in `symptomchat/phone/bundle.py`.
 *
 * In: the folder's address. Out: the bytes of the model and the parsed JSON files, each with the SHA-256 that the
 * manifest names (checked where the page is served securely; elsewhere browsers have no hash function).
 */

import { SymptomChatError } from "../errors.js";
import { unpack } from "./records.js";

const FORMAT = "symptomchat-bundle/2";
/** Bundles of the first format hold their knowledge written out; both are read. */
const READABLE = ["symptomchat-bundle/1", FORMAT];
const JSON_FILES = ["tokenizer", "knowledge", "confidence"];

/** Fetch and verify a bundle: `{manifest, model, tokenizer, knowledge, confidence}`. */
export async function openBundle(folder) {
  const manifest = parse("manifest.json", await read(folder, "manifest.json"));
  if (!READABLE.includes(manifest?.format)) throw new SymptomChatError(`manifest.json: is not of format ${FORMAT}; build the app again`);
  const names = [`model.${manifest.precision ?? "int8"}.tflite`, ...JSON_FILES.map((name) => `${name}.json`)];
  const files = await Promise.all(names.map((name) => verified(folder, name, manifest.files?.[name])));
  const parsed = Object.fromEntries(JSON_FILES.map((name, at) => [name, parse(`${name}.json`, files[at + 1])]));
  return { manifest, model: files[0], ...parsed, knowledge: known(parsed.knowledge) };
}

async function verified(folder, name, expected) {
  const bytes = await read(folder, name);
  if (globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== expected) throw new SymptomChatError(`${name}: is damaged (SHA-256 differs); load the page again`);
  }
  return bytes;
}

async function read(folder, name) {
  let response;
  try {
    response = await fetch(new URL(name, folder));
  } catch {
    throw new SymptomChatError(`${name}: cannot be reached; go online once and load the page again`);
  }
  if (!response.ok) throw new SymptomChatError(`${name}: the server answers ${response.status}; build the app again`);
  return new Uint8Array(await response.arrayBuffer());
}

function known(stored) {
  try {
    return unpack(stored);
  } catch {
    throw new SymptomChatError("knowledge.json: is of another version; build the app again");
  }
}

function parse(name, bytes) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new SymptomChatError(`${name}: is not valid JSON; build the app again`);
  }
}
