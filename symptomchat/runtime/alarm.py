"""Emergencies in words that no rule foresees: a linear classifier over hashed pieces of a text.

In: the user's words. Out: the probability that they tell of an emergency. The rules of ``triage`` name what they
find and stand first; this one has read thousands of texts and hears what they do not list. Words, pairs of words
and pieces of words are hashed into a table of one-byte weights (Weinberger et al. 2009), so it knows misspellings by
the pieces that are left and costs a tenth of a millisecond. Needs numpy alone.
"""

from __future__ import annotations

import base64
import math
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

SHORTEST, LONGEST = 3, 5
"""Letters in a piece of a word; the word's ends count as letters."""
LEAST = 8
"""Texts of fewer pieces than this are not weighed as if they had so few."""
PARTS = re.compile(r"[^\W_]+|[.!?;,]")


def parts_of(text: str) -> list[str]:
    """Lower-case words and marks; an apostrophe joins what it stands between ("can't" is ``cant``)."""
    return PARTS.findall(re.sub(r"['’]", "", text.lower()))


def pieces(text: str) -> set[str]:
    """What is counted: words, neighbouring pairs, pairs with a gap of one, and pieces of words."""
    parts = parts_of(text)
    found = {"w" + part for part in parts}
    found.update(f"w{a} {b}" for a, b in zip(parts, parts[1:]))
    found.update(f"s{a} {b}" for a, b in zip(parts, parts[2:]))
    for part in parts:
        if part[0].isalnum():
            whole = f"<{part}>"
            for length in range(SHORTEST, LONGEST + 1):
                found.update("c" + whole[at : at + length] for at in range(len(whole) - length + 1))
    return found


def buckets_of(text: str, buckets: int) -> np.ndarray:
    """Numbers of the buckets that a text's pieces fall into, ascending and distinct; CRC-32 of their UTF-8."""
    numbers = {zlib.crc32(piece.encode("utf-8", "surrogatepass")) % buckets for piece in pieces(text)}
    return np.array(sorted(numbers), "int64")


@dataclass(frozen=True)
class Alarm:
    """The classifier of a bundle.

    Attributes:
        weights: ``[buckets]`` int8.
        scale: what a weight of one stands for.
        bias: log odds of a text without pieces.
        threshold: probability from which a text counts as an emergency.
    """

    weights: np.ndarray
    scale: float
    bias: float
    threshold: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Alarm:
        """From the ``alarm`` of a bundle's ``knowledge.json``."""
        weights = np.frombuffer(base64.b64decode(values["weights"]), "int8")
        return cls(weights, float(values["scale"]), float(values["bias"]), float(values["threshold"]))

    def to_json(self) -> dict[str, Any]:
        """The inverse of ``from_json``."""
        return {
            "weights": base64.b64encode(self.weights.tobytes()).decode("ascii"),
            "scale": self.scale,
            "bias": self.bias,
            "threshold": self.threshold,
        }

    def probability(self, text: str) -> float:
        """How likely a text tells of an emergency, 0–1."""
        found = buckets_of(text, len(self.weights))
        total = float(self.weights[found].sum(dtype="int64")) if len(found) else 0.0
        odds = self.bias + self.scale * total / math.sqrt(max(LEAST, len(found)))
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, odds))))

    def rings(self, text: str) -> bool:
        """Whether a text counts as an emergency."""
        return self.probability(text) >= self.threshold
