/**
 * `knowledge.json` as plain records. Port of `unpack` in `symptomchat/phone/records.py`.
 *
 * In: the parsed file, in which texts stand once each and conditions by columns. Out: `conditions`, `names`, `phrasings`
 * and what else it holds.
 */

import { normal } from "../runtime/grounding.js";

/** The texts of a string that holds several; a list stands where one of them has the separator in it. */
function split(joined) {
  if (Array.isArray(joined)) return joined;
  return joined ? joined.split("|") : [];
}

/** Name of the condition by the normal form of its names, and then of all aliases; the first of equals counts. */
function derivedNames(conditions) {
  const table = new Map();
  const add = (name, condition) => {
    const key = normal(name);
    if (key && !table.has(key)) table.set(key, condition.name);
  };
  for (const condition of conditions) add(condition.name, condition);
  for (const condition of conditions) for (const alias of condition.aliases) add(alias, condition);
  return Object.fromEntries(table);
}

/** The knowledge base of a bundle; bundles of the first format hold plain records already. */
export function unpack(stored) {
  const { texts: joined, urgencies, conditions: columns, ...rest } = stored;
  if (Array.isArray(columns)) return stored;
  const texts = Object.fromEntries(Object.entries(joined).map(([column, list]) => [column, split(list)]));
  const listed = (column, at) => columns[column][at].map((place) => texts[column][place]);
  const names = split(columns.name);
  const emergencies = split(columns.emergency_when);
  const conditions = names.map((name, at) => {
    const differences = split(columns.difference[at]);
    return {
      name,
      aliases: split(columns.aliases[at]),
      symptoms: listed("symptoms", at),
      frequencies: columns.frequencies[at],
      treatments: listed("treatments", at),
      self_care: listed("self_care", at),
      urgency: urgencies[columns.urgency[at]],
      emergency_when: emergencies[at],
      confusable: columns.confusable[at].map((other, which) => ({
        name: typeof other === "number" ? names[other] : other,
        difference: differences[which],
      })),
    };
  });
  return {
    ...rest,
    conditions,
    names: { ...derivedNames(conditions), ...stored.names },
    phrasings: Object.fromEntries(stored.phrasings.map((ways, at) => [texts.symptoms[at], split(ways)])),
  };
}
