"""Fits temperature, confidence calibrator and flag threshold on data that no other step saw.

In: the exported file and the calibration part of the split. Out: the content of ``confidence.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from symptomchat.corpus.schema import Exchange
from symptomchat.language.grammar import Grammar
from symptomchat.runtime.confidence import FEATURES, statistics
from symptomchat.runtime.engine import Engine

RISKS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Risks that a user may choose besides the recipe's."""
SURENESS = 0.95
"""Probability, over calibration sets, with which each stated risk holds."""
STARTS = (0.05, 0.1, 0.2, 0.3)
"""Shares of the answers, surest first, at which the search for a threshold begins."""
SET_MISS = 0.1
"""Share of answerable questions whose condition may lie outside the prediction set."""


def needed(risk: float) -> int:
    """Fewest answers that could show a risk at all: even if every one of them were right."""
    return math.ceil(math.log((1 - SURENESS) / len(STARTS)) / math.log(1 - risk))


def risk_threshold(confidence: Sequence[float], right: Sequence[bool], risk: float) -> float:
    """Lowest threshold above which at most ``risk`` of the answers are wrong, with 95 % confidence.

    Learn then Test (Angelopoulos et al. 2021) with fixed-sequence testing from several starts: thresholds that
    keep a share of ``STARTS``, then 5 % more, … of the answers are tested one after another, each by the exact
    binomial p-value of "more than ``risk`` of what is kept is wrong", until one cannot be rejected. Several starts
    share the error probability between them (Bonferroni): the few surest answers may be wrong by bad luck alone,
    and would otherwise end the search before it began. It holds for data exchangeable with this.

    Returns:
        the threshold; above 1 (everything is flagged) when not even the strictest qualifies.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    scores, wrong = np.asarray(confidence)[order], ~np.asarray(right, bool)[order]
    allowed = (1 - SURENESS) / len(STARTS)
    most = 0
    for start in STARTS:
        for share in np.arange(start, 1.0001, 0.05):
            kept = max(needed(risk), round(share * len(scores)))
            if kept > len(scores) or binom.cdf(int(wrong[:kept].sum()), kept, risk) > allowed:
                break
            most = max(most, kept)
    return float(scores[most - 1]) if most else 1.01


def set_limit(probability_of_truth: Sequence[float]) -> float:
    """Probability that the true condition reaches in all but ``SET_MISS`` of the cases.

    The conformal quantile of the least ambiguous sets (Sadinle et al. 2019), finite-sample corrected.
    """
    ordered = np.sort(np.asarray(probability_of_truth))
    at = math.floor((len(ordered) + 1) * SET_MISS) - 1
    return float(ordered[at]) if at >= 0 else 0.0


def calibrate(
    engine: Engine,
    grammar: Grammar,
    exchanges: Sequence[Exchange],
    order: dict[str, int],
    risk: float,
    seed: int,
    most: int = 3000,
) -> dict[str, Any]:
    """Fit on exchanges that neither training nor early stopping saw.

    The threshold is chosen on cross-validated confidences, so that it is not judged on the rows that fitted
    the calibrator.
    """
    if len(exchanges) > most:
        exchanges = [exchanges[round(i)] for i in np.linspace(0, len(exchanges) - 1, most)]
    features, probabilities, targets = [], [], []
    for exchange in exchanges:
        ids = grammar.question(exchange.question)
        ranked, novelty = engine.rank(ids)
        features.append(statistics(ranked, novelty, grammar.unknown_share(ids), len(ids)))
        probabilities.append(ranked)
        targets.append(order[exchange.condition] if exchange.condition else 0)
    table, x, y = np.array(probabilities), np.array(features), np.array(targets)
    logs = np.log(np.maximum(table, 1e-12))

    def negative_log_likelihood(temperature: float) -> float:
        scaled = logs / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return float(-scaled[np.arange(len(y)), y].mean())

    temperature = float(minimize_scalar(negative_log_likelihood, bounds=(0.3, 5.0), method="bounded").x)
    # Right means: a condition is named and it is the one. An unanswerable question has no right condition.
    right = (table[:, 1:].argmax(axis=1) + 1) == y
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1.0, max_iter=2000, random_state=seed)
    if right.all() or not right.any():
        # Nothing to tell apart (a tiny run): the constant with one pseudo-count for each outcome.
        weights, bias = np.zeros(len(FEATURES)), float(np.log((right.sum() + 1) / ((~right).sum() + 1)))
        confidence = np.full(len(right), 1 / (1 + np.exp(-bias)))
    else:
        folds = max(2, min(5, int(right.sum()), int((~right).sum())))
        if min(right.sum(), (~right).sum()) >= 2:
            confidence = cross_val_predict(
                model, scaler.transform(x), right, cv=folds, method="predict_proba"
            )[:, 1]
        model.fit(scaler.transform(x), right)
        weights, bias = model.coef_[0], float(model.intercept_[0])
        if min(right.sum(), (~right).sum()) < 2:
            confidence = model.predict_proba(scaler.transform(x))[:, 1]
    threshold = risk_threshold(confidence.tolist(), right.tolist(), risk)
    softened = np.exp(logs / temperature - (logs / temperature).max(axis=1, keepdims=True))
    softened /= softened.sum(axis=1, keepdims=True)
    kept = confidence >= threshold
    return {
        "features": list(FEATURES),
        "temperature": temperature,
        "mean": scaler.mean_.tolist(),
        "scale": np.where(scaler.scale_ == 0, 1, scaler.scale_).tolist(),
        "weights": weights.tolist(),
        "bias": bias,
        "threshold": threshold,
        "risk": risk,
        "thresholds": {
            str(r): risk_threshold(confidence.tolist(), right.tolist(), r) for r in sorted({*RISKS, risk})
        },
        "set_limit": set_limit(softened[np.arange(len(y)), y][y > 0]) if (y > 0).any() else 0.0,
        "novelty_limit": float(np.quantile(x[:, FEATURES.index("novelty")][y > 0], 0.99))
        if (y > 0).any()
        else 2.0,
        "fitted_on": {
            "exchanges": len(y),
            "right": float(right.mean()),
            "coverage": float(kept.mean()),
            "wrong among those not flagged": float((~right[kept]).mean()) if kept.any() else 0.0,
        },
    }
