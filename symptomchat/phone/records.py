"""``knowledge.json`` in a third less bytes: texts once each, conditions by columns, nothing that can be derived.

In: what the runtime must know, as plain records. Out: the form that is stored, and back. ``docs/format.md`` says what a
port must do. Needs the standard library alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from symptomchat.runtime.grounding import normal

SEPARATOR = "|"
LISTS = ("symptoms", "treatments", "self_care")
"""Columns that hold places in the list of texts of the same name."""


def join(texts: Sequence[str]) -> str | list[str]:
    """Texts in one string, or as a list where that could not be taken apart again."""
    joined = SEPARATOR.join(texts)
    return joined if split(joined) == list(texts) else list(texts)


def split(joined: str | list[str]) -> list[str]:
    """The texts of ``join``; an empty string holds none."""
    if isinstance(joined, list):
        return list(joined)
    return joined.split(SEPARATOR) if joined else []


def derived_names(conditions: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Name of the condition by the normal form of its names, and then of all aliases; the first of equals counts."""
    conditions = list(conditions)
    table: dict[str, str] = {}
    for condition in conditions:
        table.setdefault(normal(condition["name"]), condition["name"])
    for condition in conditions:
        for alias in condition["aliases"]:
            table.setdefault(normal(alias), condition["name"])
    table.pop("", None)
    return table


def pack(knowledge: dict[str, Any]) -> dict[str, Any]:
    """The stored form of a knowledge base."""
    conditions = knowledge["conditions"]
    texts: dict[str, list[str]] = {}
    columns: dict[str, Any] = {
        "name": join([c["name"] for c in conditions]),
        "aliases": [join(c["aliases"]) for c in conditions],
    }
    for column in LISTS:
        count = Counter(text for c in conditions for text in c[column])
        # What has phrasings stands first, so that their list needs no gaps; then the commonest, by shorter numbers.
        said = knowledge["phrasings"] if column == "symptoms" else {}
        texts[column] = sorted(count, key=lambda text: (text not in said, -count[text]))
        place = {text: at for at, text in enumerate(texts[column])}
        columns[column] = [[place[text] for text in c[column]] for c in conditions]
    columns["frequencies"] = [c["frequencies"] for c in conditions]
    levels = list(dict.fromkeys(c["urgency"] for c in conditions))
    columns["urgency"] = [levels.index(c["urgency"]) for c in conditions]
    columns["emergency_when"] = join([c["emergency_when"] for c in conditions])
    number = {c["name"]: at for at, c in enumerate(conditions)}
    columns["confusable"] = [[number.get(o["name"], o["name"]) for o in c["confusable"]] for c in conditions]
    columns["difference"] = [join([o["difference"] for o in c["confusable"]]) for c in conditions]
    names = derived_names(conditions)
    phrased = [text for text in texts["symptoms"] if text in knowledge["phrasings"]]
    rest = {key: value for key, value in knowledge.items() if key not in ("conditions", "names", "phrasings")}
    return {
        "texts": {column: join(listed) for column, listed in texts.items()},
        "urgencies": levels,
        "conditions": columns,
        "names": {key: name for key, name in knowledge["names"].items() if names.get(key) != name},
        "phrasings": [join(knowledge["phrasings"][text]) for text in phrased],
        **rest,
    }


def unpack(stored: dict[str, Any]) -> dict[str, Any]:
    """The knowledge base as plain records; bundles of the first format hold them already.

    Raises:
        KeyError, IndexError, TypeError, ValueError: it is not the stored form of a knowledge base.
    """
    columns = stored["conditions"]
    if isinstance(columns, list):
        return stored
    texts = {column: split(joined) for column, joined in stored["texts"].items()}
    names = split(columns["name"])
    lists = {
        column: [[texts[column][at] for at in row] for row in columns[column]] for column in LISTS
    }  # The same string object in every condition that has it.
    conditions = [
        {
            "name": name,
            "aliases": split(aliases),
            "symptoms": symptoms,
            "frequencies": frequencies,
            "treatments": treatments,
            "self_care": self_care,
            "urgency": stored["urgencies"][urgency],
            "emergency_when": when,
            "confusable": [
                {"name": names[other] if isinstance(other, int) else other, "difference": difference}
                for other, difference in zip(others, split(differences), strict=True)
            ],
        }
        for name, aliases, symptoms, frequencies, treatments, self_care, urgency, when, others, differences in zip(
            names,
            columns["aliases"],
            lists["symptoms"],
            columns["frequencies"],
            lists["treatments"],
            lists["self_care"],
            columns["urgency"],
            split(columns["emergency_when"]),
            columns["confusable"],
            columns["difference"],
            strict=True,
        )
    ]
    return {
        **{key: value for key, value in stored.items() if key not in ("texts", "urgencies")},
        "conditions": conditions,
        "names": derived_names(conditions) | stored["names"],
        "phrasings": dict(zip(texts["symptoms"], map(split, stored["phrasings"]), strict=False)),
    }


def compact_tokenizer(spec: dict[str, Any]) -> dict[str, Any]:
    """A ``tokenizer.json`` in which the condition tokens stand in the vocabulary, where each takes a fifth of the bytes.

    No text holds them (``Grammar.pieces`` sees to that) and no answer shows them, so that being special does nothing for
    them. All ids stay.
    """
    marks = {row["content"]: row["id"] for row in spec["added_tokens"]}
    vocabulary: dict[str, int] = {**spec["model"]["vocab"], **marks}
    vocabulary = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    kept = [row for row in spec["added_tokens"] if not row["content"].startswith("<c:")]
    return {**spec, "added_tokens": kept, "model": {**spec["model"], "vocab": vocabulary}}
