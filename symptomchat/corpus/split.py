"""What a run learns from and what is kept from it.

The 0.8 split of the exchanges: seeded, by group, with a check that no group stands on both sides. And whole conditions
that are withheld, so that a bundle can be asked about what it was never taught (the open set).
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from symptomchat.corpus.knowledge import Knowledge
from symptomchat.corpus.narratives import Generator
from symptomchat.corpus.schema import Condition
from symptomchat.errors import SymptomChatError
from symptomchat.recipe import DataPart

Item = TypeVar("Item")
CHAPTERS = (
    "A00", "C00", "D50", "E00", "F00", "G00", "H00", "H60", "I00", "J00", "K00", "L00", "M00", "N00", "O00", "P00",
    "Q00", "R00", "S00", "U00", "V00", "Z00",
)  # fmt: skip
"""First category of each chapter of ICD-10, in the order of their codes."""
TOLD = 6
"""Most authored texts that ask about a withheld condition."""


def split_by_group(
    rows: Sequence[Item], group: Callable[[Item], str], share: float, seed: int
) -> tuple[list[Item], list[Item]]:
    """Split rows into (training, validation).

    A group goes to training when the hash of seed and group, read as a number in [0, 1), is below ``share``:
    adding a source later never moves a group to the other side.

    Raises:
        SymptomChatError: one side would be empty.
    """
    sides: tuple[list[Item], list[Item]] = ([], [])
    for row in rows:
        digest = hashlib.sha256(f"{seed}|{group(row)}".encode("utf-8", "surrogatepass")).digest()
        sides[int.from_bytes(digest[:8], "big") / 2**64 >= share].append(row)
    if not sides[0] or not sides[1]:
        raise SymptomChatError(
            f"split: {len(rows)} rows leave one side empty; add rows or change train_share"
        )
    check_no_leak(sides[0], sides[1], group)
    return sides


def check_no_leak(training: Sequence[Item], validation: Sequence[Item], group: Callable[[Item], str]) -> None:
    """Raise unless the two sides share no group."""
    shared = {group(row) for row in training} & {group(row) for row in validation}
    if shared:
        raise SymptomChatError(
            f"split: {len(shared)} groups stand on both sides (for example '{sorted(shared)[0]}'); split by group"
        )


def chapter(condition: Condition) -> int:
    """Number of a condition's chapter of ICD-10; 0 where it has no code."""
    return bisect_right(CHAPTERS, condition.icd10[:3]) if condition.icd10 else 0


def draw_withheld(conditions: Sequence[Condition], count: int, seed: int) -> set[str]:
    """Identifiers of so many conditions, in whole categories of ICD-10 (three characters), the chapters in turn.

    Whole categories, because a near twin that stays known would answer for the one that is withheld.
    """
    chapters: dict[int, dict[str, list[str]]] = {}
    for condition in conditions:
        category = condition.icd10[:3] or condition.id
        chapters.setdefault(chapter(condition), {}).setdefault(category, []).append(condition.id)
    rng = random.Random(f"{seed}|withheld")
    queues = [[chapters[at][name] for name in sorted(chapters[at])] for at in sorted(chapters)]
    for queue in queues:
        rng.shuffle(queue)
    rng.shuffle(queues)
    chosen: set[str] = set()
    while any(queues) and len(chosen) < count:
        for queue in queues:
            room = count - len(chosen)
            at = next((at for at, group in enumerate(queue) if len(group) <= room), None)
            if at is None:
                queue.clear()
            else:
                chosen.update(queue.pop(at))
    return chosen


def withhold(knowledge: Knowledge, options: DataPart, seed: int) -> tuple[Knowledge, Knowledge]:
    """Take the conditions that a recipe withholds out of a knowledge base.

    Returns:
        what stays, in which nothing names the withheld conditions, and what is withheld; the latter is empty unless
        the recipe asks for it.

    Raises:
        SymptomChatError: an identifier is unknown, too few conditions would stay, or one that stays bears the name of
            one that is withheld.
    """
    known = {condition.id for condition in knowledge.conditions}
    unknown = [name for name in options.withheld if name not in known]
    if unknown:
        raise SymptomChatError(
            f"data.withheld: there is no condition '{unknown[0]}'; give identifiers as in data/conditions.jsonl"
        )
    gone = set(options.withheld)
    if options.withheld_conditions:
        rest = [c for c in knowledge.conditions if c.id not in gone]
        gone |= draw_withheld(rest, options.withheld_conditions, seed)
    if len(known) - len(gone) < 2 and gone:
        raise SymptomChatError(
            f"data: {len(gone)} of {len(known)} conditions are withheld; keep at least two of them"
        )
    return _only(knowledge, known - gone), _only(knowledge, gone)


def _only(knowledge: Knowledge, ids: Collection[str]) -> Knowledge:
    """A knowledge base of some of its conditions, which name no others of it as confusable."""
    if len(ids) == len(knowledge.conditions):
        return knowledge
    kept = tuple(condition for condition in knowledge.conditions if condition.id in ids)
    names = {condition.name for condition in kept}
    stays = [
        condition.model_copy(
            update={
                "confusable": tuple(
                    c for c in condition.confusable if (knowledge.find(c.name) or condition.name) in names
                )
            }
        )
        for condition in kept
    ]
    out = replace(
        knowledge,
        conditions=tuple(stays),
        presentations=tuple(p for p in knowledge.presentations if p.condition in names),
    )
    shared = [c.name for c in knowledge.conditions if c.name not in names and out.find(c.name)]
    if shared:
        raise SymptomChatError(
            f"data.withheld: '{shared[0]}' is also a name of '{out.find(shared[0])}'; withhold both or neither"
        )
    return out


def unknown_questions(withheld: Knowledge, seed: int) -> Iterator[dict[str, str]]:
    """Questions about withheld conditions, as ``symptomchat trust --unknown`` reads them: ``text`` and ``label``.

    Of each condition at most ``TOLD`` authored texts, evenly over them (``kind`` told), and a question by its name
    (``kind`` named).
    """
    generator = Generator(withheld)
    for condition in withheld.conditions:
        texts = [p.text for p in withheld.presentations if p.condition == condition.name]
        chosen = np.linspace(0, len(texts) - 1, min(TOLD, len(texts))).round().astype(int)
        for at in chosen:
            yield {"text": texts[at], "label": condition.name, "kind": "told"}
        rng = random.Random(f"{seed}|{condition.id}")
        yield {
            "text": generator.ask_about(condition.name, rng),
            "label": condition.name,
            "kind": "named",
        }
