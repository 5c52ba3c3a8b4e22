"""Drawings of what compression costs: size against quality, and quality against heads and neurons kept.

In: rows as ``benchmarks/compression.py`` writes them. Out: PNG files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.files import atomic

Rows = Sequence[dict[str, Any]]
COLOURS = {"fp32": "#1d2733", "fp16": "#8a6d3b", "int8": "#0b6fb8", "int4": "#b8324f"}
MARKERS = "osD^vP*XhpH8<>"
WAYS = {
    "importance": ("#0b6fb8", "-", "least important first"),
    "random": ("#8a6d3b", ":", "random"),
    "magnitude": ("#b8324f", "--", "smallest weights first"),
}
MEBIBYTE = 2**20


def best_by_size(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no point of the same size or a smaller one reaches, by growing size.

    Args:
        points: ``(size, quality)``; small sizes and high qualities are wanted.
    """
    best, found = -np.inf, []
    for at in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[at][1] > best:
            best = points[at][1]
            found.append(at)
    return found


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    _pyplot().close(figure)


def draw_sizes(
    rows: Rows, suites: Sequence[str], path: Path, reference: tuple[str, int] | None = None
) -> None:
    """Size of the file against top-3 on each suite, with 95 % intervals; the best point of each size is ringed.

    Args:
        rows: with ``model``, ``precision``, ``bytes`` and for each suite ``top`` and ``interval``.
        reference: title and bytes of a model that has a size but no quality here.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(
        1, len(suites), figsize=(6.2 * len(suites), 5.0), squeeze=False, layout="constrained"
    )
    models = list(dict.fromkeys(row["model"] for row in rows))
    for axis, suite in zip(axes[0], suites):
        points = [(row["bytes"] / MEBIBYTE, 100 * row["suites"][suite]["top"]["3"]) for row in rows]
        for (size, top), row in zip(points, rows):
            low, high = (100 * value for value in row["suites"][suite]["interval"]["3"])
            axis.errorbar(
                size, top, yerr=[[max(0.0, top - low)], [max(0.0, high - top)]],
                fmt=MARKERS[models.index(row["model"]) % len(MARKERS)], markersize=6,
                color=COLOURS.get(row["precision"], "#777777"), ecolor="#d5dde5", elinewidth=1,
            )  # fmt: skip
        best = [points[at] for at in best_by_size(points)]
        axis.step(*zip(*best), where="post", color="#2e8b57", linewidth=1)
        axis.scatter(*zip(*best), s=130, facecolors="none", edgecolors="#2e8b57", linewidths=1.3, zorder=3)
        if reference:
            axis.axvline(reference[1] / MEBIBYTE, color="#777777", linestyle=":")
            axis.annotate(
                reference[0], (reference[1] / MEBIBYTE, 2), rotation=90, ha="right", va="bottom", fontsize=8,
                xycoords=("data", "data"),
            )  # fmt: skip
        axis.set_xscale("log")
        ticks = [4, 8, 16, 32, 64, 128, 256, 512]
        low, high = axis.get_xlim()
        shown = [tick for tick in ticks if low <= tick <= high]
        axis.set_xticks(shown, [str(tick) for tick in shown])
        axis.set_xticks([], minor=True)
        axis.set_ylim(bottom=0)
        axis.set(title=suite, xlabel="file, MiB (logarithmic)", ylabel="label among the first three, %")
        axis.grid(alpha=0.3)
    figure.legend(handles=_keys(models, rows), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    _save(figure, path)


def _keys(models: Sequence[str], rows: Rows) -> list[Any]:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color="#1d2733", linestyle="", marker=MARKERS[at % len(MARKERS)], label=model)
        for at, model in enumerate(models)
    ]
    keys += [
        Line2D([], [], color=COLOURS.get(name, "#777777"), linestyle="", marker="s", label=name)
        for name in dict.fromkeys(row["precision"] for row in rows)
    ]
    ring = Line2D(
        [], [], color="#2e8b57", marker="o", markersize=10, markerfacecolor="none", label="best of its size"
    )
    return [*keys, ring]


def draw_heads(
    rows: Rows, places: Sequence[str], scores: Sequence[Sequence[float]], kept: int, path: Path
) -> None:
    """Top-3 against heads and neurons kept, and which heads survive.

    Args:
        rows: with ``what`` (heads or neurons), ``way`` (a key of ``WAYS``), ``kept``, ``seed`` and ``top-3``
            by place.
        places: names of the sets of questions.
        scores: importance by layer and head.
        kept: heads of each layer that the student keeps.
    """
    pyplot = _pyplot()
    columns = len(places) + 1
    figure, axes = pyplot.subplots(
        2, columns, figsize=(4.3 * columns, 6.8), squeeze=False, layout="constrained"
    )
    for line, what in enumerate(("heads", "neurons")):
        for axis, place in zip(axes[line], places):
            _draw_ways(axis, [row for row in rows if row["what"] == what], place)
            axis.set(title=place, xlabel=f"{what} kept of each layer", ylabel="among the first three, %")
    _draw_grid(axes[0][-1], np.asarray(scores, "float64"), kept)
    axes[1][-1].axis("off")
    handles, labels = axes[0][0].get_legend_handles_labels()
    axes[1][-1].legend(handles, labels, loc="center", frameon=False)
    _save(figure, path)


def _draw_ways(axis: Any, rows: Rows, place: str) -> None:
    for way, (colour, style, label) in WAYS.items():
        own = [row for row in rows if row["way"] == way]
        values = {
            kept: [100 * row["top-3"][place] for row in own if row["kept"] == kept]
            for kept in sorted({row["kept"] for row in own})
        }
        if not values:
            continue
        at = list(values)
        axis.plot(at, [np.mean(v) for v in values.values()], style, marker=".", color=colour, label=label)
        axis.fill_between(
            at, [min(v) for v in values.values()], [max(v) for v in values.values()], color=colour, alpha=0.15
        )
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def _draw_grid(axis: Any, scores: np.ndarray, kept: int) -> None:
    from matplotlib.patches import Rectangle

    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    axis.imshow(ranks, cmap="Blues_r", aspect="auto")
    for layer, head in np.argwhere(ranks < kept):
        axis.add_patch(
            Rectangle((head - 0.46, layer - 0.46), 0.92, 0.92, fill=False, edgecolor="#b8324f", linewidth=1.5)
        )
    for layer, head in np.ndindex(ranks.shape):
        dark = ranks[layer, head] < ranks.shape[1] / 2
        axis.text(
            head, layer, str(ranks[layer, head] + 1), ha="center", va="center", fontsize=7,
            color="white" if dark else "black",
        )  # fmt: skip
    axis.set(
        title=f"rank of each head in its layer;\nframed: the {kept} that the student keeps",
        xlabel="head", ylabel="layer", xticks=range(ranks.shape[1]), yticks=range(ranks.shape[0]),
    )  # fmt: skip
