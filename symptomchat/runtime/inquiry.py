"""The next best question: which finding, asked now, tells the likely conditions apart most.

In: the model's probabilities of the conditions and what was answered so far. Out: the question with the highest
expected information gain under the profiles of the knowledge base, or none where asking on would not help; and
the evidence of the answers as logarithms of likelihood ratios, which ``Assistant.ask`` weighs its ranking with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from symptomchat.runtime.findings import MOST_FREQUENT, Findings, Profiles
from symptomchat.runtime.triage import NEGATIONS

YES, NO, UNSURE = "yes", "no", "not sure"
ANSWERS = (YES, NO, UNSURE)

SURE = 0.9
"""Where one condition holds so much, even a perfect question could move a tenth of the probability at most."""
LEAST_GAIN = 0.05
"""Bits. A fair yes-or-no answer brings one bit; below a twentieth of that a question costs patience for nothing."""
MOST_QUESTIONS = 10
"""In one case. Longer lists are broken off by the people who have to answer them."""
CONSIDERED = 50
"""Likeliest conditions that a question is chosen over: the rest hold little probability and much time."""
YES_WEIGHT = 0.5
"""Share of a yes's likelihood ratio that is applied: the model hears the yes in words too, so half each."""
EXPERT_WEIGHT = 0.5
"""Factor on the gain of a finding that has no everyday phrasing: people can often not tell ("a low platelet
count"), and a question that gets "not sure" tells nothing."""


@dataclass(frozen=True)
class Question:
    """A question about one finding.

    Attributes:
        ways: how people say it, at most two.
        gain: expected information gain in bits.
    """

    finding: str
    ways: tuple[str, ...]
    gain: float

    @property
    def text(self) -> str:
        """What is asked; a form that fits any finding, a noun, a clause or an adjective."""
        return f"Does this fit you: {self.finding}?"


def entropy(p: np.ndarray, axis: int = -1) -> np.ndarray:
    """Shannon entropy in bits along an axis."""
    return np.asarray(-(p * np.log2(np.maximum(p, 1e-12))).sum(axis=axis))


def information_gain(prior: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Expected information gain of asking for each finding (Lindley 1956).

    Args:
        prior: ``[K]``, probabilities of the conditions, summing to one.
        likelihood: ``[K, F]``, probability of a yes in each condition.

    Returns:
        ``[F]`` in bits: entropy of the prior less the mean entropy after the answer; never below zero.
    """
    yes = prior[:, None] * likelihood
    no = prior[:, None] * (1 - likelihood)
    gain = np.full(likelihood.shape[1], float(entropy(prior)))
    for joint in (yes, no):
        total = joint.sum(axis=0)
        gain -= total * entropy(joint / np.maximum(total, 1e-12), axis=0)
    return np.maximum(gain, 0.0)


class Inquiry:
    """Chooses questions and weighs their answers over the knowledge of one bundle.

    Args:
        conditions: in the order of the condition tokens.
        phrasings: other ways to say a finding, by its name.
    """

    def __init__(self, conditions: list[dict[str, Any]], phrasings: dict[str, list[str]]) -> None:
        self.profiles = Profiles(conditions)
        self.findings = Findings(self.profiles.names, phrasings)
        self.phrasings = phrasings
        # A yes or no to a negative ("no fever") is read in two ways, so negatives are not asked for.
        self._askable = np.array(
            [not NEGATIONS & set(name.lower().split()) for name in self.profiles.names], dtype=bool
        )
        self._weight = np.array(
            [1.0 if phrasings.get(name) else EXPERT_WEIGHT for name in self.profiles.names]
        )

    def evidence(self, replies: Mapping[str, str]) -> np.ndarray | None:
        """Logarithms of the likelihood ratios ``[C]`` of all answers against the background, none first.

        A "not sure" says nothing; None where nothing was answered.
        """
        total = np.zeros(self.profiles.conditions + 1)
        counted = False
        for finding, value in replies.items():
            if value == UNSURE or finding not in self.profiles.number:
                continue
            counted = True
            here = self.profiles.of(finding)
            background = min(float(self.profiles.background[self.profiles.number[finding]]), MOST_FREQUENT)
            if value == YES:
                total[1:] += YES_WEIGHT * np.log(here / background)
            else:
                total[1:] += np.log((1 - here) / (1 - background))
        return total if counted else None

    def next(
        self, probabilities: np.ndarray, known: Mapping[str, bool], asked: Iterable[str]
    ) -> Question | None:
        """The question to ask now.

        Args:
            probabilities: ``[C]``, calibrated, the first that of none; answers included.
            known: findings that were said to be present or absent.
            asked: findings that were asked for already.

        Returns:
            None where one condition is sure enough, too much was asked, or no question would help.
        """
        asked = set(asked)
        if len(asked) >= MOST_QUESTIONS:
            return None
        rows = np.argsort(-probabilities[1:], kind="stable")[:CONSIDERED]
        prior = probabilities[1:][rows]
        prior = prior / prior.sum()
        if prior[0] >= SURE:
            return None
        likelihood, columns = self.profiles.table(rows)
        gain = information_gain(prior, likelihood)
        order = np.argsort(-gain * self._weight[columns], kind="stable")
        for at in order:
            number = int(columns[at])
            name = self.profiles.names[number]
            if gain[at] < LEAST_GAIN:
                return None
            if self._askable[number] and name not in asked and self.answer_of(name, known) is None:
                return Question(name, tuple(self.phrasings.get(name, ())[:2]), round(float(gain[at]), 4))
        return None

    def answer_of(self, name: str, known: Mapping[str, bool]) -> bool | None:
        """What is known of a finding: said outright, or implied ("fever" by a high one, no high one by no fever)."""
        if name in known:
            return known[name]
        number = self.profiles.number[name]
        for other, present in known.items():
            other_number = self.profiles.number.get(other)
            if other_number is None:
                continue
            if present and number in self.profiles.wider[other_number]:
                return True
            if not present and other_number in self.profiles.wider[number]:
                return False
        return None
