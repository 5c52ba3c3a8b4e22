"""Reference texts in question-and-answer form (MedQuAD, Ben Abacha and Demner-Fushman 2019), read into exchanges.

In: a file or a Hub dataset with the focus of each question, its type and the answer. Out: passages of one to
three sentences about conditions that the knowledge base has, with the condition's names masked, so that a
model cannot learn to read the name off. Licence of MedQuAD: CC BY 4.0, attribution to its authors.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symptomchat.corpus.knowledge import Knowledge
from symptomchat.corpus.narratives import Generator
from symptomchat.corpus.schema import Exchange
from symptomchat.corpus.sources import hub_frame
from symptomchat.errors import SymptomChatError
from symptomchat.files import fingerprint, read_jsonl, sha256

FIELDS = {
    "focus": ("focus", "question_focus"),
    "type": ("qtype", "question_type"),
    "answer": ("answer",),
    "synonyms": ("synonyms",),
}
USED = ("symptoms", "information")
LONGEST = 12
"""Passages taken of one condition: a few conditions of the set have hundreds of answers."""


@dataclass(frozen=True)
class Reference:
    """One answer about one condition."""

    focus: str
    synonyms: tuple[str, ...]
    answer: str


def load_references(where: str) -> tuple[list[Reference], str]:
    """Answers on symptoms and general information, and the fingerprint of the source.

    Args:
        where: a JSON-lines file, or the id of a Hub dataset.

    Raises:
        SymptomChatError: the source cannot be read or has not the fields of MedQuAD.
        HubUnreachable: the Hub gave no dataset.
    """
    path = Path(where)
    rows: list[dict[str, Any]]
    if path.suffix in (".jsonl", ".json") or path.is_file():
        rows = [row for _, row in read_jsonl(path)]
        mark = sha256(path)[:16]
    else:
        rows = [
            {str(name): value for name, value in row.items()} for row in hub_frame(where).to_dict("records")
        ]
        mark = fingerprint([[str(value) for value in row.values()] for row in rows])
    names = {ours: _field(rows, ours, theirs, where) for ours, theirs in FIELDS.items()}
    references = []
    for row in rows:
        if str(row.get(names["type"])) in USED and row.get(names["answer"]) and row.get(names["focus"]):
            synonyms = row.get(names["synonyms"])
            listed = synonyms.split("|") if isinstance(synonyms, str) else list(synonyms or ())
            references.append(
                Reference(str(row[names["focus"]]), tuple(map(str, listed)), str(row[names["answer"]]))
            )
    return references, mark


def _field(rows: list[dict[str, Any]], ours: str, theirs: tuple[str, ...], where: str) -> str:
    for name in theirs:
        if rows and name in rows[0]:
            return name
    if ours == "synonyms":
        return ours
    raise SymptomChatError(
        f"{where}: field '{theirs[0]}' is missing; give a file or a Hub dataset laid out like MedQuAD"
    )


def reference_exchanges(
    references: list[Reference], knowledge: Knowledge, generator: Generator, seed: int
) -> Iterator[Exchange]:
    """Masked passages of the conditions that the knowledge base has, at most ``LONGEST`` each."""
    taken: dict[str, int] = {}
    for at, reference in enumerate(references):
        name = next(
            (found for n in (reference.focus, *reference.synonyms) if (found := knowledge.find(n))), None
        )
        if name is None:
            continue
        condition = knowledge.by_name[name]
        names = {reference.focus, *reference.synonyms, condition.name, *condition.aliases}
        rng = random.Random(f"{seed}|medquad|{at}")
        for passage in passages(reference.answer, names, rng):
            if taken.get(name, 0) >= LONGEST:
                break
            taken[name] = taken.get(name, 0) + 1
            yield generator.exchange(passage, condition, "diagnose", f"medquad{at}", "medquad")


def passages(answer: str, names: set[str], rng: random.Random) -> Iterator[str]:
    """One to three neighbouring sentences at a time, names replaced by "this condition"."""
    longest = sorted((n for n in names if len(n) > 2), key=len, reverse=True)
    pattern = re.compile("|".join(rf"\b{re.escape(n)}\b" for n in longest), re.IGNORECASE)
    text = pattern.sub("this condition", " ".join(answer.split()))
    sentences = [s.strip(" -") for s in re.split(r"(?<=[.!?])\s+", text) if len(s.split()) >= 4]
    at = 0
    while at < len(sentences):
        step = rng.randint(1, 3)
        yield " ".join(sentences[at : at + step])
        at += step
