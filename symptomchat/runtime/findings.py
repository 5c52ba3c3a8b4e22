"""Findings in free text, and how often each condition shows them.

In: the user's words, and the conditions and phrasings of a bundle. Out: mentions of findings, each present or
denied, with its place; and for every condition the probability of each finding. Nothing here asks the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from symptomchat.runtime.grounding import content, normal
from symptomchat.runtime.triage import NEGATIONS, RESET, _form, _negated, _past, commas_of

WORD = re.compile(r"[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\n]")
"""A word or a clause mark, as ``triage.words_of`` takes them."""
FILLERS = frozenset(
    ["a", "an", "the", "my", "his", "her", "their", "our", "your", "some", "any", "very", "really", "quite", "so"]
)  # fmt: skip
"""Words that a phrasing may hold or lack without another meaning: "pain in my neck" is "pain in the neck"."""
MOST_FREQUENT, LEAST_FREQUENT = 0.95, 0.02
"""No finding is certain, none impossible: people misread questions, and profiles are no measurements."""
FIRST_RANK, LAST_RANK = 0.8, 0.15
"""Frequencies of the first and the last finding of a profile that gives ranks alone."""
NO_IMPLICATION = NEGATIONS | frozenset(
    ["family", "history", "earlier", "past", "previous", "recent", "fear", "relative", "relieved", "better", "gone", "less", "cannot", "can", "unable", "normal", "old", "healed", "goes", "went", "stopped"]
)  # fmt: skip
"""Words with which a longer name does not imply the shorter one: "family history of migraine" is no migraine."""
BACKGROUND = 0.02
"""Share of people with a finding that neither their condition nor any other lists often."""


@dataclass(frozen=True)
class Mention:
    """A finding that a text names.

    Attributes:
        finding: its name in the knowledge base.
        present: False where the text denies it.
        begin, end: place in the text, in characters.
    """

    finding: str
    present: bool
    begin: int
    end: int


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Form under which words are compared: plurals and the endings of a verb do not count."""
    return _form(word) if len(word) > 3 else word


def lower(text: str) -> str:
    """Lower case with plain apostrophes, of the same length, so that places stay where they were."""
    return "".join(char.lower()[0] for char in text).replace("’", "'")


def clinical_denial(words: list[str], at: int) -> bool:
    """Whether "denies" stands before a place in its sentence: it reaches over a whole list, commas and all."""
    for word in reversed(words[max(0, at - 20) : at]):
        if word in ".;!?\n" or word in RESET:
            return False
        if word in ("denies", "denied", "denying"):
            return True
    return False


class Findings:
    """Recognises findings by their names and phrasings, the longest match first.

    Args:
        names: every finding.
        phrasings: other ways to say a finding, by its name.
    """

    def __init__(self, names: Iterable[str], phrasings: dict[str, list[str]]) -> None:
        self._ways: dict[str, dict[tuple[str, ...], str]] = {}
        names = list(dict.fromkeys(names))
        for name in names:
            self._add(name, name)
        # A name wins over a phrasing, an earlier phrasing over a later one.
        for name in names:
            for way in phrasings.get(name, ()):
                self._add(way, name)
        self._lengths = {
            first: sorted({len(way) for way in ways}, reverse=True) for first, ways in self._ways.items()
        }

    def _add(self, way: str, name: str) -> None:
        words = tuple(
            stem(word) for word in WORD.findall(lower(way)) if word not in FILLERS and word not in ".;!?\n"
        )
        if words and (len(words) > 1 or len(words[0]) > 2):
            self._ways.setdefault(words[0], {}).setdefault(words, name)

    def mentions(self, text: str) -> list[Mention]:
        """Every finding that a text names, in its order; what is said to be long past is left out."""
        text = lower(text)
        places = [match.span() for match in WORD.finditer(text)]
        words = [text[begin:end] for begin, end in places]
        commas = commas_of(text)
        kept = [at for at, word in enumerate(words) if word not in FILLERS]
        stems = [stem(words[at]) for at in kept]
        found: list[Mention] = []
        at = 0
        while at < len(kept):
            length, name = self._longest(stems, at)
            if name is not None:
                first, last = kept[at], kept[at + length - 1]
                if not _past(words, first):
                    denied = _negated(words, commas, first) or clinical_denial(words, first)
                    found.append(Mention(name, not denied, places[first][0], places[last][1]))
            # "no fever" is a finding of its own and denies fever: the words after the "no" are read again.
            at += 1 if words[kept[at]] in NEGATIONS else max(1, length)
        return found

    def _longest(self, stems: list[str], at: int) -> tuple[int, str | None]:
        """Number of words and the finding of the longest way to say one that begins here."""
        ways = self._ways.get(stems[at])
        for length in self._lengths.get(stems[at], ()):
            name = ways.get(tuple(stems[at : at + length])) if ways else None
            if name is not None and at + length <= len(stems):
                return length, name
        return 0, None

    def recognise(self, text: str) -> dict[str, bool]:
        """Finding → present; a finding that is named both ways counts as present."""
        found: dict[str, bool] = {}
        for mention in self.mentions(text):
            found[mention.finding] = found.get(mention.finding, False) or mention.present
        return found


def frequencies(condition: dict[str, Any]) -> list[float]:
    """How often a condition shows each of its findings, 0–1, aligned with its ``symptoms``.

    An older bundle ranks the findings without a frequency: they then fall evenly from the first to the last.
    """
    names = condition["symptoms"]
    given = condition.get("frequencies")
    if given is not None and len(given) == len(names):
        return [float(percent) / 100 for percent in given]
    step = (FIRST_RANK - LAST_RANK) / max(1, len(names) - 1)
    return [FIRST_RANK - step * at for at in range(len(names))]


def implied(names: list[str]) -> list[list[int]]:
    """For every finding the wider ones that it implies: "dry cough" implies "cough" ("no cough" does not)."""
    words = [content(name) for name in names]
    holders: dict[str, set[int]] = {}
    for at, own in enumerate(words):
        for word in own:
            holders.setdefault(word, set()).add(at)
    wider: list[list[int]] = [[] for _ in names]
    for at, own in enumerate(words):
        if not own or NO_IMPLICATION & own:
            continue
        for narrow in set.intersection(*(holders[word] for word in own)):
            if (
                narrow != at
                and own < words[narrow]
                and not NO_IMPLICATION & set(normal(names[narrow]).split())
            ):
                wider[narrow].append(at)
    return wider


class Profiles:
    """Probability of each finding in each condition.

    Args:
        conditions: those of a bundle, in the order of its condition tokens.

    Attributes:
        names: every finding, in a fixed order.
        number: place of a finding in ``names``.
        wider: numbers of the findings that each implies.
        background: ``[F]``, share of people with a finding whose condition does not list it: a little, and
            more for what many conditions share (tiredness), since no profile lists everything.
    """

    def __init__(self, conditions: list[dict[str, Any]]) -> None:
        self.names = list(dict.fromkeys(name for c in conditions for name in c["symptoms"]))
        self.number = {name: at for at, name in enumerate(self.names)}
        self.wider = implied(self.names)
        self._listed = []
        for condition in conditions:
            own: dict[int, float] = {}
            for name, frequency in zip(condition["symptoms"], frequencies(condition), strict=True):
                # Who has a dry cough has a cough: a profile that lists the one shows the other as often.
                for number in (self.number[name], *self.wider[self.number[name]]):
                    own[number] = max(own.get(number, 0.0), frequency)
            values = np.clip(np.array(list(own.values()), "float64"), LEAST_FREQUENT, MOST_FREQUENT)
            self._listed.append((np.array(list(own), "int64"), values))
        total = np.zeros(len(self.names))
        for places, values in self._listed:
            total[places] += values
        self.background = BACKGROUND + total / max(1, len(conditions))
        self.conditions = len(conditions)

    def table(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities ``[len(rows), F']`` of the findings that these conditions list, and their numbers."""
        listed = [self._listed[row][0] for row in rows]
        columns = np.unique(np.concatenate(listed)) if listed else np.zeros(0, "int64")
        values = np.repeat(self.background[columns][None], len(rows), axis=0)
        for at, row in enumerate(rows):
            places, own = self._listed[row]
            spots = np.searchsorted(columns, places)
            # Where a finding is so common that its background is higher, the profile's own figure stands.
            values[at, spots] = own
        return values, columns

    def of(self, finding: str) -> np.ndarray:
        """Probability ``[C]`` of one finding in each condition."""
        number = self.number[finding]
        values = np.full(self.conditions, self.background[number])
        for at, (places, own) in enumerate(self._listed):
            hit = np.flatnonzero(places == number)
            if len(hit):
                values[at] = own[hit[0]]
        return values
