"""How the model was trained: losses by epoch beside the talk's demo, the stages, and what each ingredient is worth.

Read from ``docs/results/``, which the training command and the benchmarks write.
"""

from __future__ import annotations

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


def losses(recipe: str) -> None:
    """The curves of a recipe beside the talk's."""
    ours, talk = curves(recipe), curves("talk")
    if not ours:
        missing(RESULTS / recipe / "teacher_state.csv")
    for title, table in (*ours.items(), *talk.items()):
        st.subheader(title.capitalize(), anchor=False)
        if len(table) > 1:
            lines(table, "epoch", "loss", 220)
        rows = [
            (str(row.epoch), f"{row.training:.3f}", f"{row.validation:.3f}") for row in table.itertuples()
        ]
        with st.expander("Figures"):
            st.html(look.table(("epoch", "training", "validation"), rows))
    if not talk:
        missing(RESULTS / "talk" / "talk_state.csv")
    st.caption(
        "The talk's demo: its training loss falls and its validation loss does not. Every loss is a mean over real "
        "tokens. Ours adds the loss of the condition, so the curves are to be read each by itself."
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
            f"{row['validation loss']:.3f}",
            f"{row['accuracy']:.1%}",
            f"{row['ms per token']:.2f}",
        )
        for row in read_json(path)
    ]
    st.html(
        look.table(("stage", "parameters (M)", "MiB", "validation loss", "accuracy", "ms per token"), rows)
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
    st.html(look.table(("trained with", *(f"{suite}: top-1 / 3 / 5" for suite in suites)), rows))
    steps = {row.get("steps") for row in found.values()}
    st.caption(
        f"The pretrained start, fine-tuned for {', '.join(map(str, steps))} steps on each variant. On so few cases "
        "differences of a few points are noise."
    )


def main() -> None:
    """The page."""
    st.title("Training", anchor=False)
    recipes = sorted(path.parent.name for path in RESULTS.glob("*/table.json"))
    if not recipes:
        st.caption("docs/results/ holds no run yet; python train.py writes one.")
        return
    recipe = st.segmented_control("Recipe", recipes, default=recipes[0], key="recipe", required=True)
    try:
        st.header("Stages", anchor=False)
        st.caption("On unseen groups of the project's own text.")
        stages(str(recipe))
        st.header("Losses by epoch", anchor=False)
        losses(str(recipe))
        st.header("What each ingredient is worth", anchor=False)
        ablation()
    except (SymptomChatError, KeyError, ValueError) as error:
        st.error(
            look.plain(f"docs/results/: a file is damaged or of another version ({error}); make it again")
        )


main()
