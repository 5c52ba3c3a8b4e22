"""From the statistics of one answer to the probability that it is right. Pure functions; numpy alone.

In: what the forward pass already computed. Out: features, and through a small logistic calibrator that the
bundle carries (fitted on data that no other step saw) one probability. Sources: maximum softmax probability,
Hendrycks and Gimpel 2017; temperature scaling, Guo et al. 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEATURES = ("top", "margin", "entropy", "none", "novelty", "unknown", "length")
"""Names of the calibrator's inputs, in order."""


def statistics(probabilities: np.ndarray, novelty: float, unknown: float, pieces: int) -> np.ndarray:
    """Features of one question.

    Args:
        probabilities: ``[C]``, the first that of ``<c:none>``.
        novelty: one minus the highest cosine with anything learned (higher = stranger).
        unknown: share of pieces outside the vocabulary (higher = stranger).
        pieces: length of the question in tokens.

    Returns:
        ``[7]`` in the order of ``FEATURES``: log odds of the highest probability among the conditions (higher
        = surer), log ratio of the two highest (higher = surer), entropy in nats (higher = less sure), log odds
        of none (higher = less sure), novelty, unknown, log of the length.
    """
    known = np.sort(probabilities[1:])[::-1]
    first, second = float(known[0]), float(known[1]) if len(known) > 1 else 0.0
    none = float(probabilities[0])
    entropy = float(-(probabilities * np.log(probabilities + 1e-12)).sum())
    return np.array(
        [
            _log_odds(first),
            np.log((first + 1e-6) / (second + 1e-6)),
            entropy,
            _log_odds(none),
            novelty,
            unknown,
            np.log1p(pieces),
        ]
    )


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


@dataclass(frozen=True)
class Calibrator:
    """Temperature for the ranking, logistic regression for the confidence, and the default threshold.

    Attributes:
        temperature: the logarithms of the probabilities are divided by it.
        mean, scale, weights, bias: standardisation and weights of the features.
        threshold: an answer below it is flagged.
        risk: share of wrong answers that the threshold allows among those not flagged.
        novelty_limit: above it a question is unlike anything learned (99th percentile of calibration data).
    """

    temperature: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float
    risk: float
    novelty_limit: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibrator:
        """Read ``confidence.json``."""
        numbers = ("temperature", "bias", "threshold", "risk", "novelty_limit")
        return cls(
            mean=tuple(values["mean"]),
            scale=tuple(values["scale"]),
            weights=tuple(values["weights"]),
            **{name: float(values[name]) for name in numbers},
        )

    def soften(self, probabilities: np.ndarray) -> np.ndarray:
        """Temperature scaling of a distribution ``[C]``."""
        logits = np.log(np.maximum(probabilities, 1e-12)) / self.temperature
        raised = np.exp(logits - logits.max())
        return raised / raised.sum()

    def confidence(self, features: np.ndarray) -> float:
        """Probability that the first condition is right, 0–1."""
        z = (features - np.array(self.mean)) / np.array(self.scale)
        return float(1 / (1 + np.exp(-(z @ np.array(self.weights) + self.bias))))


def conformal_threshold(confidence: Sequence[float], right: Sequence[bool], risk: float) -> float:
    """Lowest threshold whose share of wrong answers among those kept is bounded by ``risk``.

    The bound is the one of conformal risk control (Angelopoulos et al. 2022) in its selective form: with n
    kept answers of which k are wrong, (k + 1) / (n + 1) must not exceed the risk, at this and every higher
    threshold that keeps at least twenty answers.

    Returns:
        the threshold; above 1 (everything is flagged) when no threshold qualifies.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    scores, wrong = np.asarray(confidence)[order], ~np.asarray(right, bool)[order]
    kept = np.arange(1, len(scores) + 1)
    bound = (np.cumsum(wrong) + 1) / (kept + 1)
    best = 1.01
    for n, limit, score in zip(kept, bound, scores):
        if limit <= risk:
            best = float(score)
        elif n > 20 and limit > 1.5 * risk:
            break
    return best
