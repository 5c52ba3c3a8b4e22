"""Fits temperature, confidence calibrator and flag threshold on data that no other step saw.

In: the exported file and the calibration part of the split. Out: the content of ``confidence.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from symptomchat.corpus.schema import Exchange
from symptomchat.language.grammar import Grammar
from symptomchat.runtime.confidence import FEATURES, conformal_threshold, statistics
from symptomchat.runtime.engine import Engine


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
    threshold = conformal_threshold(confidence.tolist(), right.tolist(), risk)
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
