"""Writes the README's tables from the committed results of runs: ``python benchmarks/readme_tables.py``.

Reads ``docs/results/`` (stage table, evaluation, loss curves, usage; copied there by ``--collect RUN``) and
replaces what stands between the markers of README.md and docs/experiments.md, so that no figure is typed by hand.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
NAMES = ("table.json", "usage.json", "parity.json", "samples.json")


def collect(run: Path) -> None:
    """Copy the small result files of a run into ``docs/results/<run>``."""
    target = RESULTS / run.name
    target.mkdir(parents=True, exist_ok=True)
    # Not the samples or the cleaning table: they hold text of the sources.
    for path in [
        *(run / "work" / name for name in NAMES),
        *(run / "work").glob("*_state.csv"),
        run / "confidence.json",
    ]:
        if path.is_file():
            shutil.copy(path, target / path.name)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; the first column to the left, numbers to the right."""
    head = list(rows[0])
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join("---" if i == 0 else "---:" for i in range(len(head))) + "|",
    ]
    lines += ["| " + " | ".join(show(row.get(name, "")) for name in head) + " |" for row in rows]
    return "\n".join(lines)


def show(value: Any) -> str:
    """A number as a person reads it."""
    if isinstance(value, int) and value > 9999:
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def stages(run: str) -> str:
    """The stage table of a run."""
    rows = json.loads((RESULTS / run / "table.json").read_text(encoding="utf-8"))
    return markdown(
        [
            {
                "stage": r["stage"],
                "parameters (M)": r["parameters"] / 1e6,
                "MiB": r["bytes"] / 2**20,
                "gzip MiB": r["gzip bytes"] / 2**20,
                "validation loss": r["validation loss"],
                "accuracy": r["accuracy"],
                "ms per token": r["ms per token"],
            }
            for r in rows
        ]
    )


def suites(name: str = "evaluation.json") -> str:
    """The evaluation on suites."""
    rows = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return markdown(
        [
            {
                "suite": r["suite"],
                "system": r["system"],
                "labels known": f"{r['coverage']:.1%}",
                **{f"top-{k}": _with_interval(r, k) for k in (1, 3, 5)},
            }
            for r in rows
        ]
    )


def _with_interval(row: dict[str, Any], k: int) -> str:
    low, high = row[f"top-{k} interval"]
    return f"{row[f'top-{k}']:.1%} ({low:.0%}–{high:.0%})"


def curves() -> str:
    """Loss by epoch: the talk's demo beside the teacher and the student of the laptop recipe."""
    columns = {}
    for title, path in (
        ("talk", RESULTS / "talk" / "talk_state.csv"),
        ("teacher", RESULTS / "laptop" / "teacher_state.csv"),
        ("student", RESULTS / "laptop" / "student_state.csv"),
    ):
        if not path.is_file():
            continue
        columns[title] = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    rows = []
    for epoch in range(max(map(len, columns.values()))):
        row: dict[str, Any] = {"epoch": epoch + 1}
        for title, values in columns.items():
            for part in ("training loss", "validation loss"):
                row[f"{title}: {part.split()[0]}"] = float(values[epoch][part]) if epoch < len(values) else ""
        rows.append(row)
    return markdown(rows)


def usage(run: str) -> str:
    """Time and memory of a run."""
    used = json.loads((RESULTS / run / "usage.json").read_text(encoding="utf-8"))
    fitted = json.loads((RESULTS / run / "confidence.json").read_text(encoding="utf-8"))["fitted_on"]
    cost = f"`python train.py` took {used['seconds'] / 60:.1f} minutes and at most {used['peak_bytes'] / 2**30:.2f} GiB on two cores."
    if not fitted["coverage"]:
        return f"{cost} Its answers are all flagged: no threshold could be shown to leave at most a tenth of the rest wrong."
    return (
        f"{cost} At the default threshold {fitted['coverage']:.0%} of unseen answers of the project's own texts are not "
        f"flagged, and {fitted['wrong among those not flagged']:.1%} of those are wrong."
    )


def trust() -> str:
    """Confidence, flags, urgency and red flags of the shipped model."""
    found = json.loads((RESULTS / "trust.json").read_text(encoding="utf-8"))
    rows = []
    for row in found["labelled"]:
        rows.append(
            {
                "questions": row["kind"],
                "number": row["questions"],
                "right": f"{row['right']:.1%}",
                "not flagged": f"{row['not flagged']:.1%}",
                "wrong among those": f"{row['wrong among those']:.1%}",
                "calibration error": f"{row['ECE']:.3f}",
                "AUROC right/wrong": f"{row['AUROC confidence']:.3f}",
                "(maximum softmax)": f"{row['AUROC maximum softmax']:.3f}",
                "in the set": f"{row['in the set']:.1%}",
                "size of the set": f"{row['size of the set']:.1f}",
            }
        )
    flagged = "; ".join(f"{row['kind']} {row['flagged']:.0%}" for row in found["unanswerable"])
    triage, red = found["triage"], found["red flags"]
    return (
        markdown(rows)
        + f"\n\nFlagged among questions that must not be answered (kinds that no step saw): {flagged}. Answerable from "
        f"unanswerable: AUROC {found['answerable']['AUROC confidence']:.3f} (maximum softmax "
        f"{found['answerable']['AUROC maximum softmax']:.3f}). Urgency: as in the knowledge base for "
        f"{triage['same urgency']:.1%}, never less urgent for {triage['never less urgent']:.1%}. Red flags: recall "
        f"{red['recall']:.1%} on their own phrasings, false alarms on {red['fired on self-care']:.1%} of presentations that need "
        "self-care." + _beyond(found)
    )


def _beyond(found: dict[str, Any]) -> str:
    """What the plain rows do not show: fresh emergencies, minimal pairs, generated claims, other scores."""
    fresh = {row["half"]: row for row in found["pairs"]["fresh emergencies"]}
    pairs = "; ".join(
        f"{row['kind']} {row['right']:.0%} of {row['pairs']}"
        for row in found["pairs"]["conditions"]
        if row.get("pairs")
    )
    claims = "; ".join(
        f"{row['kind']} {row['claims unsupported']:.0%} of {row['claims']}"
        for row in found["claims"]
        if row["claims"]
    )
    scores = "; ".join(
        f"{row['score']} {row['AUROC']:.3f}" for row in found["uncertainty"] if row["on"] == "sampled"
    )
    blind = {row["kind"]: row for row in found["pairs"]["blind emergencies"]}
    heard = "; ".join(
        f"{name} {row['recall']:.0%} (false alarms {row['false alarms']:.1%})" for name, row in blind.items()
    )
    number = blind["both"]
    return (
        f"\n\nEmergencies that somebody told without sight of rules and training texts ({number['emergencies']}, and "
        f"{number['harmless']} harmless neighbours in the same words): {heard}. In fresh words by the author of the rules: a red flag fires on {fresh['untouched']['recall']:.0%} of "
        f"{fresh['untouched']['emergencies']} (on {fresh['tuned']['recall']:.0%} of the half whose mistakes shaped the rules; both "
        f"halves were written by the author of the rules' later additions), and on {fresh['untouched']['false alarms']:.0%} of harmless "
        f"neighbours. Minimal pairs in which a finding is denied, past, or somebody else's, and the condition loses a quarter of its "
        f"odds: {pairs}. Generated claims that no record supports, each marked where it is shown: {claims or 'none'}. AUROC right/wrong "
        f"on the questions with ten sampled answers: {scores or 'not sampled'}. The words that an explanation marks lower the log odds "
        f"by {found['explanations']['difference']:.1f} more than as many others."
    )


def distillation() -> str:
    """What each part of distillation is worth, on the suites."""
    path = RESULTS / "distillation.json"
    if not path.is_file():
        return "Not measured yet (`python benchmarks/distillation.py`)."
    values = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for row in values["rows"]:
        shown: dict[str, Any] = {
            "row": row["title"],
            "steps": row["steps"],
            "validation loss": f"{row['validation']['loss']:.2f}",
        }
        for suite, measured in row["suites"].items():
            against = row.get("against labels", {}).get(suite, {}).get("3")
            low, high = against["interval"] if against else (0.0, 0.0)
            shown[f"{suite}: top-3"] = f"{100 * measured['top']['3']:.1f}"
            shown["to labels only" + " " * len(shown)] = (
                f"{100 * against['difference']:+.1f} ({100 * low:+.0f} to {100 * high:+.0f}), {against['verdict']}"
                if against
                else ""
            )
        rows.append(shown)
    return markdown(rows)


def read(name: str, script: str) -> dict[str, Any]:
    """The results of a benchmark.

    Raises:
        SystemExit: it was not run.
    """
    path = RESULTS / name
    if not path.is_file():
        raise SystemExit(f"{path}: is missing; run python benchmarks/{script}")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def measured(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The columns of one exported file: size, speed and what it ranks."""
    shown: dict[str, Any] = {
        "model": f"{row['model']} {row['precision']}",
        **more,
        "MiB": row["bytes"] / 2**20,
        "gzip MiB": row["gzip bytes"] / 2**20,
        "ms to rank": row["ms per rank"],
        "ms per token": "cannot" if row["ms per token"] is None else row["ms per token"],
        "first as fp32": f"{100 * row['same first as fp32']:.0f}%",
    }
    for suite, found in row.get("suites", {}).items():
        low, high = found["interval"]["3"]
        shown[f"{suite}: top-3"] = f"{100 * found['top']['3']:.1f} ({100 * low:.0f}–{100 * high:.0f})"
    return shown


def compression(cuts: bool = False) -> str:
    """Size against quality: the stages of the recipe, or the teacher cut to several sizes without recovery."""
    rows = read("compression.json", "compression.py")["family"]
    return markdown(
        [
            measured(row, **{"parameters (M)": row["parameters"] / 1e6})
            for row in rows
            if row["model"].startswith("cut alone") == cuts
        ]
    )


def sparsity() -> str:
    """Magnitude sparsity in one shot, and what the recipe's schedule reached."""
    rows = read("compression.json", "compression.py")["sparsity"]
    return markdown([measured(row, zeros=f"{100 * row['zeros']:.0f}%") for row in rows])


def quantization() -> str:
    """int8 with calibrated activations."""
    found = read("quantization.json", "compression.py")["static"]
    return markdown([measured(row) for part in found for row in part["rows"]])


def speed() -> str:
    """Tokens per second of a training step, beside PyTorch."""
    kinds = read("training_speed.json", "training.py")["kinds"]
    return markdown(
        [
            {
                "batch": f"{kind}: {found['question'][0]} × ({found['question'][1]} + {found['answer'][1]})",
                "framework": row["framework"],
                "seconds per step": row["seconds per step"],
                "fastest–slowest": f"{row['fastest']:.3g}–{row['slowest']:.3g}",
                "tokens per second": row["tokens per second"],
            }
            for kind, found in kinds.items()
            for row in found["rows"]
        ]
    )


def architectures() -> str:
    """What ``--teacher`` takes: a small instance of each architecture was loaded, trained for a moment and timed."""
    return markdown(
        [
            {
                "system": row["system"],
                "`--teacher`": f"`{row['teacher']}`",
                "gives": row["gives"],
                "here": row["stood in"],
                "parameters of the real one (M)": row["parameters"] / 1e6,
            }
            for row in read("teachers.json", "teachers.py")["architectures"]
        ]
    )


def teachers() -> str:
    """The teachers whose real weights were at hand, on the suites."""
    rows = []
    for row in read("teachers.json", "teachers.py")["teachers"]:
        shown = {
            "system": row["system"], "questions read": row["read"], "trained": row["trained"],
            "ms": row["milliseconds"], "own, unseen": f"{100 * row['own, unseen']:.1f}",
        }  # fmt: skip
        for suite, top in row.items():
            if isinstance(top, dict):
                shown[f"{suite}: top-1 / 3 / 5"] = " / ".join(
                    f"{100 * top[f'top-{k}'][0]:.1f}" for k in (1, 3, 5)
                )
        rows.append(shown)
    return markdown(rows)


def phone() -> str:
    """What a bundle costs beside what an app developer would take instead."""
    rows = [row for row in read("phone.json", "phone.py")["rows"] if "answer ms" in row]
    ships = next(row for row in rows if row["model"].endswith("(ships)"))
    table = markdown(
        [
            {
                "model": row["model"],
                "MiB": row["bytes"] / 2**20,
                "gzip MiB": row["gzip bytes"] / 2**20,
                "load s": row["load seconds"],
                "first answer ms": row["first answer ms"],
                "answer ms": row["answer ms"],
                "ms per token": row["ms per token"],
                "peak MiB": row.get("peak MiB", ""),
                "whole browser's peak MiB": row.get("whole browser's peak MiB", ""),
                "download MiB": row.get("download MiB", ""),
            }
            for row in rows
        ]
    )
    others = [row for row in rows if not row["model"].startswith("symptomchat")]
    beside = "; ".join(
        f"{row['model']}: {row['answer ms'] / ships['answer ms']:.1f} times the time of an answer, "
        f"{row['bytes'] / ships['bytes']:.1f} times the size"
        for row in others
    )
    return f"{table}\n\nBeside the bundle that ships: {beside}."


def ingredients() -> str:
    """What each ingredient of the data is worth."""
    values = json.loads((RESULTS / "ingredients.json").read_text(encoding="utf-8"))
    rows = []
    for name, row in values.items():
        measured = {suite: scores for suite, scores in row.items() if isinstance(scores, dict)}
        rows.append(
            {"variant": name}
            | {
                suite: " / ".join(f"{100 * value:.1f}" for value in scores.values())
                for suite, scores in measured.items()
            }
        )
    return markdown(rows)


def samples() -> str:
    """What the talk's demo says."""
    path = RESULTS / "talk" / "samples.json"
    if not path.is_file():
        return "Not measured yet (`python train.py --recipe talk`)."
    values = json.loads(path.read_text(encoding="utf-8"))
    return (
        "Generated symptoms that the record supports: "
        + "; ".join(f"conditions {kind}: {value:.0%}" for kind, value in values.items())
        + "."
    )


def main() -> None:
    """Collect results, or rewrite the README's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--collect", type=Path, action="append", default=[], metavar="RUN", help="folder of a finished run"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail where the README is not up to date"
    )
    arguments = parser.parse_args()
    for run in arguments.collect:
        collect(run)
    parts: dict[Path, dict[str, Callable[[], str]]] = {
        ROOT / "README.md": {
            "stages": lambda: stages("laptop"),
            "shipped": lambda: stages("full"),
            "suites": suites,
            "trust": trust,
            "curves": curves,
            "usage": lambda: usage("laptop"),
            "samples": samples,
            "distillation": distillation,
            "compression": compression,
            "phone": phone,
        },
        ROOT / "docs" / "experiments.md": {
            "ingredients": ingredients,
            "cuts": lambda: compression(cuts=True),
            "sparsity": sparsity,
            "quantization": quantization,
            "speed": speed,
            "architectures": architectures,
            "teachers": teachers,
        },
    }
    for path, makers in parts.items():
        before = text = path.read_text(encoding="utf-8")
        for name, make in makers.items():
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            text = pattern.sub("\\1@@PART@@\n\\2", text).replace("@@PART@@", make())
        if arguments.check and text != before:
            raise SystemExit(f"{path.name} is not what the script writes; run it again")
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
            print(f"{path} rewritten")


if __name__ == "__main__":
    main()
