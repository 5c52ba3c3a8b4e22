"""Red flags and urgency: rules that stand above whatever the model thinks.

In: the user's words. Out: the red flags that fire. A rule's pattern is a list of groups of alternatives; it
matches where one alternative of every group stands within one passage, none of them negated, long past, or
said of someone in another time. Words of five letters and more may be misspelt by one letter, words of eight
and more by two; but an ordinary word is never read as a misspelling of another ("black" is not "back").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

WINDOW = 16
NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "without",
        "denies",
        "deny",
        "denied",
        "negative",
        "don't",
        "dont",
        "doesn't",
        "doesnt",
        "didn't",
        "didnt",
        "isn't",
        "isnt",
        "hasn't",
        "hasnt",
        "haven't",
        "havent",
        "wasn't",
        "wasnt",
        "nor",
        "neither",
    ]
)
PAST = (
    "years ago", "year ago", "months ago", "last year", "long ago", "as a child", "went away", "used to have",
    "in the past", "has gone", "is gone", "recovered from", "used to get", "when i was", "through my nose", "through the nose",
)  # fmt: skip
HYPOTHETICAL = (
    "what are the symptoms",
    "symptoms of",
    "what is",
    "what if",
    "in case of",
    "how do i know",
    "prevent",
)
RESET = frozenset(["but", "however", "although", "except", "yet", "though"])


@dataclass(frozen=True)
class Fired:
    """A red flag that fired."""

    id: str
    name: str
    advice: str


def words_of(text: str) -> list[str]:
    """Lower-case words; clause marks stay as ``.``."""
    text = text.lower().replace("’", "'")
    return re.findall(r"[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]", text)


@lru_cache(maxsize=65536)
def same_word(word: str, wanted: str) -> bool:
    """Equal, a simple inflection, or misspelt by one (from five letters) or two (from eight) letters."""
    if same_inflected(word, wanted):
        return True
    room = 2 if len(wanted) >= 8 else 1 if len(wanted) >= 5 else 0
    if word[:1] != wanted[:1]:
        # "neumonia" is a misspelling, "conscious" is the opposite.
        room = min(room, 1) if len(wanted) >= 8 else 0
    if not room or abs(len(word) - len(wanted)) > room:
        return False
    return _distance(word, wanted, room) <= room


def same_inflected(word: str, wanted: str) -> bool:
    """Equal but for a plural's ending, or two endings of one verb ("vomited" and "vomiting")."""
    return word == wanted or (len(word) > 3 and _form(word) == _form(wanted))


def _form(word: str) -> str:
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)] + "~"
    return word.rstrip("s")


def _distance(a: str, b: str, most: int) -> int:
    """Optimal string alignment distance, cut off above ``most``."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def _places(words: list[str], phrase: str, ordinary: frozenset[str] = frozenset()) -> list[int]:
    wanted = phrase.split()
    return [
        at
        for at in range(len(words) - len(wanted) + 1)
        if all(
            (same_inflected if words[at + k] in ordinary else same_word)(words[at + k], wanted[k])
            for k in range(len(wanted))
        )
    ]


def commas_of(text: str) -> frozenset[int]:
    """Places in ``words_of(text)`` before which a comma stands."""
    pieces = re.findall(r",|[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]", text.lower().replace("’", "'"))
    found, at = set(), 0
    for piece in pieces:
        if piece == ",":
            found.add(at)
        else:
            at += 1
    return frozenset(found)


def _negated(words: list[str], commas: frozenset[int], at: int) -> bool:
    """Whether a negation reaches this place: up to four words before it in the same clause.

    "no tears, diarrhea" denies the tears alone; "no tears, diarrhea or fever" denies all three.
    """
    for back in range(at - 1, max(-1, at - 5), -1):
        if words[back] in ".;!?\n" or words[back] in RESET:
            return False
        if words[back] in NEGATIONS:
            if not any(back < comma <= at for comma in commas):
                return True
            return _lists_alternatives(words, back)
    # "denies fever, weight loss, chest pain": a clinical negation reaches to the end of its sentence, and so does
    # "no swelling of the lids, change of vision or neck stiffness".
    for back in range(at - 1, max(-1, at - 14), -1):
        if words[back] in ".;!?\n" or words[back] in RESET:
            return False
        if words[back] in ("denies", "denied", "without"):
            return True
        if words[back] in ("no", "nor") and any(back < comma <= at for comma in commas):
            return _lists_alternatives(words, back)
    return False


def _lists_alternatives(words: list[str], begin: int) -> bool:
    """Whether an "or" stands between a place and the end of its clause: then a negation denies the whole list."""
    for word in words[begin:]:
        if word in ".;!?\n" or word in RESET:
            return False
        if word in ("or", "nor"):
            return True
    return False


def _past(words: list[str], at: int) -> bool:
    begin, end = at, at
    while begin > 0 and words[begin - 1] not in ".;!?\n" and words[begin - 1] not in RESET:
        begin -= 1
    while end < len(words) and words[end] not in ".;!?\n" and words[end] not in RESET:
        end += 1
    clause = " ".join(words[begin:end])
    return any(mark in clause for mark in PAST)


class RedFlags:
    """The rules of a bundle.

    Args:
        rules: objects with ``id``, ``name``, ``advice`` and ``patterns``.
        ordinary: words that are no misspelling of others; a bundle's are the whole words of its vocabulary.
    """

    def __init__(self, rules: list[dict[str, Any]], ordinary: frozenset[str] = frozenset()) -> None:
        self.rules = rules
        self.ordinary = ordinary

    def check(self, text: str) -> list[Fired]:
        """Red flags in a text, in the order of the rules."""
        words, commas = words_of(text), commas_of(text)
        asks = any(mark in text.lower() for mark in HYPOTHETICAL) and not re.search(
            r"\b(i|my|he|she|his|her)\b", text.lower()
        )
        if asks or not words:
            return []
        found: dict[str, list[int]] = {}

        def places(phrase: str) -> list[int]:
            if phrase not in found:
                found[phrase] = [
                    at
                    for at in _places(words, phrase, self.ordinary)
                    if not _negated(words, commas, at) and not _past(words, at)
                ]
            return found[phrase]

        fired = []
        for rule in self.rules:
            if any(
                _matches([[at for phrase in group for at in places(phrase)] for group in pattern])
                for pattern in rule["patterns"]
            ):
                fired.append(Fired(rule["id"], rule["name"], rule["advice"]))
        return fired


def _matches(groups: list[list[int]]) -> bool:
    """Whether every group has a place within ``WINDOW`` words of one place of the first group."""
    return all(groups) and any(
        all(any(abs(at - first) <= WINDOW for at in group) for group in groups[1:]) for first in groups[0]
    )


ORDER = ("unknown", "self_care", "see_doctor", "emergency")
ENOUGH = 0.2
"""Share of the probability at which an urgency counts: missing one is held four times as bad as a vain alarm."""


def more_urgent(a: str, b: str) -> str:
    """The more urgent of two urgencies."""
    return max(a, b, key=ORDER.index)


def urgency(ranked: list[tuple[str, float]], fired: list[Fired], answered: bool) -> str:
    """Urgency of an answer, erring to the safe side.

    Args:
        ranked: ``(urgency, probability)`` of the conditions.
        fired: red flags.
        answered: whether a condition was recognised at all.

    Returns:
        emergency when a red flag fires or emergencies together hold ``ENOUGH`` of the probability; otherwise the
        more urgent of the first condition's urgency and of what holds as much.
    """
    if fired:
        return "emergency"
    if not answered:
        return "unknown"
    mass = {name: sum(p for u, p in ranked if u == name) for name in ORDER}
    if mass["emergency"] >= ENOUGH:
        return "emergency"
    first = ranked[0][0] if ranked else "unknown"
    return more_urgent(first, "see_doctor" if mass["see_doctor"] + mass["emergency"] >= ENOUGH else "unknown")
