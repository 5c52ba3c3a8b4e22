"""The report of a run: curves, stage table, commonest mistakes, and a page that opens by itself.

In: the artefacts of a run. Out: ``report/index.html`` with everything embedded, and the figures and tables
beside it.
"""

from __future__ import annotations

import base64
import csv
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symptomchat.files import atomic, read_json, read_text, write_text
from symptomchat.runtime.engine import Engine

if TYPE_CHECKING:
    from symptomchat.pipeline import Run

TITLES = {
    "talk": "The talk's demo",
    "teacher": "Teacher",
    "student": "Student, distilling",
    "pruned": "Student, pruning",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2733;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}td,th{padding:.3rem .7rem;border-bottom:1px solid #d5dde5;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%;height:auto}h1,h2{line-height:1.2}
"""


def histories(work: Path) -> dict[str, list[dict[str, float]]]:
    """Epoch rows of every loop of a run, by name."""
    found = {}
    for name in TITLES:
        path = work / f"{name}_state.csv"
        if path.is_file():
            found[name] = [
                {k: float(v) for k, v in row.items() if v}
                for row in csv.DictReader(io.StringIO(read_text(path)))
            ]
    return found


def draw_curves(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Training and validation loss of each loop, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.4), squeeze=False)
    for axis, (name, rows) in zip(axes[0], curves.items()):
        epochs = [row["epoch"] for row in rows]
        axis.plot(epochs, [row["training loss"] for row in rows], marker="o", label="training")
        axis.plot(
            epochs, [row["validation loss"] for row in rows], marker="s", linestyle="--", label="validation"
        )
        axis.set_title(TITLES.get(name, name))
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss")
        axis.set_xticks(epochs)
        axis.legend()
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def confusions(run: Run, most: int = 15) -> list[dict[str, Any]]:
    """The commonest mistakes on the calibration part, through the file that ships."""
    engine = Engine(run.options.output / f"model.{run.recipe.ships}.tflite")
    names = ["(none)", *run.order]
    counts: dict[tuple[str, str], int] = {}
    rows = run.encoded("calibration", 1500)
    for row in rows:
        probabilities, _ = engine.rank(list(row.question))
        guess = int(probabilities.argmax())
        if guess != row.condition:
            pair = (names[row.condition], names[guess])
            counts[pair] = counts.get(pair, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [{"meant": meant, "answered": answered, "times": times} for (meant, answered), times in ordered]


def html_table(rows: list[dict[str, Any]]) -> str:
    """Rows as an HTML table."""
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_show(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _show(value: Any) -> str:
    if isinstance(value, int) and value > 9999:
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def image(path: Path) -> str:
    """An image embedded in the page."""
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def write_report(run: Run) -> None:
    """Write figures, tables and the page of one run."""
    folder, work = run.options.report, run.work
    curves = histories(work)
    draw_curves(curves, folder / "curves.png")
    for name in curves:
        write_text(folder / f"{name}.csv", read_text(work / f"{name}_state.csv"))
    sources = read_json(work / "sources.json")
    parts = [f"<h1>SymptomChat: run {html.escape(run.recipe.name)}</h1>"]
    parts += [f"<p><strong>{html.escape(notice)}</strong></p>" for notice in sources["notices"]]
    parts.append(
        "<h2>Data</h2>"
        + html_table([{k: v for k, v in s.items() if k != "files"} for s in _even(sources["sources"])])
    )
    parts.append(
        f"<p>{sources['conditions']} conditions; exchanges: {html.escape(str(sources['exchanges']))}.</p>"
    )
    parts.append(
        "<h2>Loss</h2><p>Means over real tokens, never over padding.</p>" + image(folder / "curves.png")
    )
    for name, rows in curves.items():
        parts.append(
            f"<h3>{html.escape(TITLES.get(name, name))}</h3>" + html_table([dict(row) for row in rows])
        )
    if run.recipe.kind == "prefix":
        table, mistakes = read_json(work / "table.json"), confusions(run)
        fitted = read_json(run.options.output / "confidence.json")
        parts.append("<h2>Stages</h2>" + html_table(table))
        parity = [{"file": name, **values} for name, values in read_json(work / "parity.json").items()]
        parts.append("<h2>Exported files against Keras</h2>" + html_table(parity))
        parts.append(
            "<h2>Confidence</h2>"
            + html_table([{"threshold": fitted["threshold"], "risk": fitted["risk"], **fitted["fitted_on"]}])
        )
        parts.append("<h2>Commonest mistakes on unseen text</h2>" + html_table(mistakes))
        _write_table(folder / "stages.csv", table)
        _write_table(folder / "confusions.csv", mistakes)
    else:
        summary = read_json(work / "samples.json")
        samples = list(csv.DictReader(io.StringIO(read_text(work / "samples.csv"))))
        parts.append("<h2>What it says</h2><p>Share of generated symptoms that the record supports: ")
        parts.append(
            "; ".join(f"conditions {kind}: {value:.0%}" for kind, value in summary.items())
            + ".</p>"
            + html_table([dict(s) for s in samples])
        )
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>SymptomChat: run {html.escape(run.recipe.name)}</title><style>{STYLE}</style><body>{"".join(parts)}</body></html>'
    write_text(folder / "index.html", page)


def _even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "files"))
    return [{name: row.get(name, "") for name in names} for row in rows]


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, text.getvalue())
