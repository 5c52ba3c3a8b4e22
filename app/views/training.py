"""How the model was trained: losses by epoch beside the talk's demo, the stages, and what each ingredient is worth.

What pruning, distillation and quantization are worth is shown where their benchmarks left results.

Read from ``docs/results/``, which the training command and the benchmarks write.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app.ui import look
from app.ui.charts import lines
from symptomchat import SymptomChatError
from symptomchat.files import ROOT, read_json

RESULTS = ROOT / "docs" / "results"
TITLES = {
    "talk_state": "the talk's demo",
    "teacher_state": "teacher",
    "student_state": "student",
    "pruned_state": "student, pruned",
}


def missing(path: Path) -> None:
    """One line about a results file that is not there."""
    st.caption(look.plain(f"docs/results/{path.relative_to(RESULTS)} is not there yet; a run writes it."))


def curves(recipe: str) -> dict[str, pd.DataFrame]:
    """Training and validation loss by epoch for each stage of a recipe."""
    found = {}
    for name, title in TITLES.items():
        path = RESULTS / recipe / f"{name}.csv"
        if path.is_file():
            table = pd.read_csv(path)
            table = table[["epoch", "training loss", "validation loss"]].astype({"epoch": int})
            found[title] = table.rename(
                columns={"training loss": "training", "validation loss": "validation"}
            )
    return found


def figures(table: pd.DataFrame) -> None:
    """The numbers of a chart."""
    rows = [(str(row.epoch), f"{row.training:.3f}", f"{row.validation:.3f}") for row in table.itertuples()]
    with st.expander("Figures"):
        st.html(look.table(("epoch", "training", "validation"), rows))


def curve(title: str, table: pd.DataFrame, top: float) -> None:
    """One training, or its figures alone where it had one epoch and so no curve."""
    st.subheader(title.capitalize(), anchor=False)
    if len(table) > 1:
        lines(table, "epoch", "loss", whole=True, top=top)
        figures(table)
    else:
        row = table.iloc[0]
        st.caption(f"One epoch: training loss {row.training:.3f}, validation loss {row.validation:.3f}.")


def losses(recipe: str) -> None:
    """The curves of a recipe beside the talk's."""
    ours, talk = curves(recipe), curves("talk")
    if not ours:
        missing(RESULTS / recipe / "teacher_state.csv")
    if not talk:
        missing(RESULTS / "talk" / "talk_state.csv")
    both = {**talk, **ours}
    if not both:
        return
    top = math.ceil(max(float(table[["training", "validation"]].to_numpy().max()) for table in both.values()))
    sides = st.columns(2)
    for at, (title, table) in enumerate(both.items()):
        with sides[at % 2]:
            curve(title, table, top)
    st.caption(
        "The talk's demo learns its text by heart: the training loss falls and the validation loss does not. Every "
        "loss is a mean over real tokens; ours adds the loss of the condition, so compare the shapes, not the heights."
    )


def stages(recipe: str) -> None:
    """What each stage gives."""
    path = RESULTS / recipe / "table.json"
    if not path.is_file():
        missing(path)
        return
    rows = [
        (
            str(row["stage"]),
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['bytes'] / 2**20:.2f}",
            f"{row['gzip bytes'] / 2**20:.2f}" if "gzip bytes" in row else "–",
            f"{row['validation loss']:.3f}",
            f"{row['accuracy']:.1%}",
            f"{row['ms per token']:.2f}",
        )
        for row in read_json(path)
    ]
    st.html(
        look.table(
            (
                "stage",
                "parameters (M)",
                "MiB",
                "MiB zipped",
                "validation loss",
                "first right",
                "ms per token",
            ),
            rows,
        )
    )


def ablation() -> None:
    """What each ingredient of the data is worth."""
    path = RESULTS / "ingredients.json"
    if not path.is_file():
        missing(path)
        return
    found: dict[str, dict[str, Any]] = read_json(path)
    suites = sorted(
        {name for row in found.values() for name, value in row.items() if isinstance(value, dict)}
    )
    rows = [
        (
            variant,
            *(" / ".join(f"{value:.0%}" for value in row.get(suite, {}).values()) or "–" for suite in suites),
        )
        for variant, row in found.items()
    ]
    st.html(look.table(("trained with", *(f"{look.suite(suite)}: top 1 / 3 / 5" for suite in suites)), rows))
    steps = {row.get("steps") for row in found.values()}
    st.caption(
        f"The pretrained start, fine-tuned for {', '.join(map(str, steps))} steps on each variant. On so few cases "
        "differences of a few points are noise."
    )


def pruning(recipe: str) -> None:
    """What cutting, distilling, pruning and quantizing change from one stage to the next."""
    path = RESULTS / recipe / "table.json"
    if not path.is_file():
        missing(path)
        return
    found = [row for row in read_json(path) if {"parameters", "bytes", "accuracy"} <= row.keys()]
    # Files of several precisions are made from one model: each is compared with that model, not with the file before.
    rows, before = [], found[0] if found else {}
    for row in found[1:]:
        gained = 100 * (row["accuracy"] - before["accuracy"])
        rows.append(
            (
                f"{before['stage']} → {row['stage']}",
                change(row["parameters"] / before["parameters"] - 1),
                change(row["bytes"] / before["bytes"] - 1),
                f"{gained:+.1f}",
            )
        )
        before = (
            before if row["stage"].startswith(".tflite") and before["stage"].startswith(".tflite") else row
        )
    st.html(look.table(("step", "parameters", "bytes", "first right, points"), rows))
    heads()


def change(share: float) -> str:
    """A relative change in percent; what rounds to none is said as such."""
    return f"{share:+.0%}" if abs(share) >= 0.005 else "same"


def heads() -> None:
    """Quality against attention heads and neurons kept, where the benchmark left its results."""
    path = RESULTS / "heads.json"
    if not path.is_file():
        return
    found = pd.DataFrame(read_json(path)["rows"])
    for what in [name for name in ("heads", "neurons") if name in set(found["what"])]:
        part = found[found["what"] == what]
        st.subheader(f"{what.capitalize()} kept", anchor=False)
        suites = sorted({name for row in part["top-3"] for name in row})
        suite = suites[0]
        values = part.assign(right=[row.get(suite) for row in part["top-3"]])
        wide = values.pivot_table(index="kept", columns="way", values="right").reset_index()
        wide.columns.name = None
        kept = f"{what} kept in each layer"
        lines(wide.rename(columns={"kept": kept}), kept, f"among the first three, {look.suite(suite)}")
        with st.expander("Figures"):
            head = [str(name) for name in wide.columns]
            body = [
                [f"{row[0]:.0f}", *("–" if pd.isna(v) else f"{v:.1%}" for v in row[1:])]
                for row in wide.itertuples(index=False)
            ]
            st.html(look.table(head, body))
    st.caption(
        "Without training afterwards. The least important first, against chance and against the smallest weights."
    )


def distillation() -> None:
    """What each part of distillation is worth, where the benchmark left its results."""
    path = RESULTS / "distillation.json"
    if not path.is_file():
        return
    st.header("What distillation is worth", anchor=False)
    found = read_json(path)
    suites = sorted({name for row in found["rows"] for name in row["suites"]})
    rows = []
    for row in found["rows"]:
        cells = []
        for name in suites:
            against = row.get("against labels", {}).get(name, {}).get("3", {}).get("verdict", "")
            cells.append(f"{row['suites'][name]['top']['3']:.0%}{f', {against}' if against else ''}")
        rows.append((str(row["title"]), str(row["steps"]), *cells))
    st.html(look.table(("student", "steps", *(f"{look.suite(name)}, first 3" for name in suites)), rows))
    st.caption("Beside each share: whether it differs from labels alone by more than chance.")


def main() -> None:
    """The page."""
    st.title("Training", anchor=False)
    recipes = sorted(path.parent.name for path in RESULTS.glob("*/table.json"))
    if not recipes:
        st.caption("docs/results/ holds no run yet; python train.py writes one.")
        return
    recipe = str(st.segmented_control("Recipe", recipes, default=recipes[0], key="recipe", required=True))
    try:
        st.header("Losses by epoch", anchor=False)
        losses(recipe)
        st.header("Stages", anchor=False)
        st.caption(
            "From the teacher to the file for a phone, on a part of the project's own text that none saw."
        )
        stages(recipe)
        st.header("What each step costs and gains", anchor=False)
        pruning(recipe)
        distillation()
        st.header("What each ingredient is worth", anchor=False)
        ablation()
    except (SymptomChatError, KeyError, ValueError, TypeError) as error:
        st.error(
            look.plain(f"docs/results/: a file is damaged or of another version ({error}); make it again")
        )


main()
