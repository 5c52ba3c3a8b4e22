"""From the statistics of one answer to the probability that it is right. Pure functions; numpy alone.

In: what the forward pass already computed. Out: features, and through a small logistic calibrator that the
bundle carries (fitted on data that no other step saw) one probability. Sources: maximum softmax probability,
Hendrycks and Gimpel 2017; temperature scaling, Guo et al. 2017.
"""

from __future__ import annotations

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
        thresholds: the threshold for each risk that a user may choose.
        set_limit: conditions that are at least so probable form the prediction set.
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
    set_limit: float
    thresholds: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibrator:
        """Read ``confidence.json``."""
        numbers = ("temperature", "bias", "threshold", "risk", "novelty_limit", "set_limit")
        return cls(
            mean=tuple(values["mean"]),
            scale=tuple(values["scale"]),
            weights=tuple(values["weights"]),
            thresholds=tuple(sorted((float(r), float(t)) for r, t in values["thresholds"].items())),
            **{name: float(values[name]) for name in numbers},
        )

    def threshold_for(self, risk: float) -> float:
        """Threshold of the largest calibrated risk that does not exceed the one asked for.

        Raises:
            ValueError: the risk is not between 0 and 1, or smaller than any that was calibrated.
        """
        if not 0 < risk < 1:
            raise ValueError(f"risk {risk}: must lie between 0 and 1")
        fitting = [threshold for known, threshold in self.thresholds if known <= risk + 1e-9]
        if not fitting:
            least = self.thresholds[0][0] if self.thresholds else 1.0
            raise ValueError(f"risk {risk}: the smallest that this bundle is calibrated for is {least}")
        return fitting[-1]

    def soften(self, probabilities: np.ndarray) -> np.ndarray:
        """Temperature scaling of a distribution ``[C]``."""
        logits = np.log(np.maximum(probabilities, 1e-12)) / self.temperature
        raised = np.exp(logits - logits.max())
        return raised / raised.sum()

    def confidence(self, features: np.ndarray) -> float:
        """Probability that the first condition is right, 0–1."""
        z = (features - np.array(self.mean)) / np.array(self.scale)
        return float(1 / (1 + np.exp(-(z @ np.array(self.weights) + self.bias))))
