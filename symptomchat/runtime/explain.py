"""Which words mattered: occlusion over the user's words.

In: an assistant and a text. Out: spans of the text, each with how much the odds of the first condition fall when
the span is left out (Zeiler and Fergus 2014, on words). One pass of the model per span, with a stated limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from symptomchat.runtime.assistant import Judgement

MOST_PASSES = 24
"""Passes of the model; a longer text is taken in spans of several words."""
MATTERS = 0.25
"""A span is worth marking where leaving it out lowers the log odds by so much: odds fall by a fifth."""
TELL_NOTHING = frozenset(["a", "an", "the", "i", "my", "and", "have", "had", "am", "is", "it", "of", "to"])
"""Words whose mark would puzzle: without them a sentence is odd, which moves the model a little, and means the same."""


@dataclass(frozen=True)
class Span:
    """A part of a text, in characters, and its effect on the log odds of the first condition (+ = speaks for it)."""

    begin: int
    end: int
    effect: float


def log_odds(p: float) -> float:
    """Natural log odds of a probability, cut off at one in a million."""
    p = min(max(p, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


def spans_of(text: str, most: int = MOST_PASSES) -> list[tuple[int, int]]:
    """Words of a text that can tell something, or runs of as many where there are more than ``most``."""
    words = [match.span() for match in re.finditer(r"[^\W_]+(?:['’.-][^\W_]+)*", text)]
    words = [(begin, end) for begin, end in words if text[begin:end].lower() not in TELL_NOTHING] or words
    size = -(-len(words) // most) if words else 1
    return [(words[at][0], words[min(at + size, len(words)) - 1][1]) for at in range(0, len(words), size)]


def without(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with the spans left out."""
    for begin, end in sorted(spans, reverse=True):
        text = text[:begin] + text[end:]
    return re.sub(r"\s+", " ", text).strip()


def which_words(
    judge: Callable[[str], Judgement], text: str, condition: int | None = None, context: str = "{}"
) -> list[Span]:
    """Effect of every span of a text on one condition.

    Args:
        judge: ``Assistant.judge``, or the same with evidence.
        condition: place of the condition in the bundle (from 0); by default the likeliest.
        context: the whole that the model reads, with ``{}`` where the text stands in it.
    """
    whole = judge(context.replace("{}", text, 1)).probabilities
    at = (int(whole[1:].argmax()) if condition is None else condition) + 1
    base = log_odds(float(whole[at]))
    spans = []
    for begin, end in spans_of(text):
        rest = context.replace("{}", without(text, [(begin, end)]), 1)
        left = log_odds(float(judge(rest).probabilities[at])) if rest.strip() else log_odds(1 / len(whole))
        spans.append(Span(begin, end, round(base - left, 4)))
    return spans
