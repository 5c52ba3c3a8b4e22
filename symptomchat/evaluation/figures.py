"""Reliability diagrams and risk-coverage curves: their points, and their drawings.

In: confidences and whether each answer is right. Out: points as plain values (for a page that draws them itself)
and PNG and SVG files. Reliability: Guo et al. 2017; risk-coverage: Geifman and El-Yaniv 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from symptomchat.corpus.schema import slug
from symptomchat.files import atomic

POINTS = 101
"""Points of a risk-coverage curve that are kept at most."""


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Bins of equal width that hold answers: mean confidence, share right, its 95 % Wilson interval, number."""
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    points = []
    for b in range(bins):
        inside = at == b
        if not inside.any():
            continue
        interval = binomtest(int(right[inside].sum()), int(inside.sum())).proportion_ci(method="wilson")
        points.append(
            {
                "confidence": float(confidence[inside].mean()),
                "right": float(right[inside].mean()),
                "low": float(interval.low),
                "high": float(interval.high),
                "number": int(inside.sum()),
            }
        )
    return points


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Share wrong among the surest answers, for every share of answers that is kept.

    Returns:
        ``area`` under the curve (0 = best), ``best area`` of an order that puts every right answer first,
        ``random area`` of no order at all (the share wrong), and at most ``POINTS`` points ``coverage``, ``risk``.
    """
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(right) + 1)
    risk = np.cumsum(~right[order]) / kept
    best = np.cumsum(np.sort(~right)) / kept
    chosen = np.unique(np.linspace(0, len(right) - 1, min(POINTS, len(right))).round().astype(int))
    return {
        "area": float(risk.mean()),
        "best area": float(best.mean()),
        "random area": float((~right).mean()),
        "points": [
            {"coverage": float(kept[i] / len(right)), "risk": float(risk[i]), "confidence": float(confidence[order][i])}
            for i in chosen
        ],
    }  # fmt: skip


def _canvas(title: str, across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=across, ylabel=up, xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.25)
    return figure, axes


def draw_reliability(kind: str, points: list[dict[str, float]]) -> Any:
    """A figure: share right against confidence, with intervals; the diagonal is perfect calibration."""
    figure, axes = _canvas(f"Reliability: {kind}", "confidence", "share right")
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    x = np.array([p["confidence"] for p in points])
    y = np.array([p["right"] for p in points])
    gaps = np.clip(
        [y - [p["low"] for p in points], [p["high"] for p in points] - y],
        0,
        None,
    )
    axes.errorbar(x, y, yerr=gaps, marker="o", capsize=3, color="C0")
    for p in points:
        axes.annotate(
            str(int(p["number"])),
            (p["confidence"], p["right"]),
            xytext=(5, -11),
            textcoords="offset points",
            fontsize=7,
        )
    return figure


def draw_risk_coverage(curves: dict[str, dict[str, Any]]) -> Any:
    """A figure: one risk-coverage curve for each kind of questions."""
    figure, axes = _canvas("Risk and coverage", "share of answers kept", "share wrong among them")
    for kind, curve in curves.items():
        axes.plot(
            [p["coverage"] for p in curve["points"]],
            [p["risk"] for p in curve["points"]],
            label=f"{kind} (area {curve['area']:.3f})",
        )
    axes.legend(fontsize=7)
    return figure


def save(figure: Any, path: Path) -> None:
    """Write a figure atomically; the same figures give the same bytes."""
    from matplotlib import rc_context

    form = path.suffix[1:]
    with rc_context({"svg.hashsalt": "symptomchat"}), atomic(path) as temporary:
        figure.savefig(temporary, format=form, metadata={"Date": None} if form == "svg" else None)


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what ``trust`` measured into ``folder``, each as PNG and as SVG.

    Args:
        found: holds ``reliability`` and ``risk coverage``, both by kind of questions.

    Raises:
        SymptomChatError: the folder cannot be written.
    """
    figures = {
        f"reliability-{slug(kind)}": draw_reliability(kind, points)
        for kind, points in found["reliability"].items()
    }
    figures["risk-coverage"] = draw_risk_coverage(found["risk coverage"])
    paths = []
    for name, figure in figures.items():
        for form in ("png", "svg"):
            paths.append(folder / f"{name}.{form}")
            save(figure, paths[-1])
    return paths
