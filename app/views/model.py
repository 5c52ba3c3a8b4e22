"""The model that answers here: size against quality, its files, how fast it is on this machine, and its card.

Size and quality are read from the bundle's own manifest and from ``docs/results/``, which the commands and the
benchmarks write.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.ui import look, session
from symptomchat import Assistant, SymptomChatError
from symptomchat.files import ROOT, read_json, read_text

RESULTS = ROOT / "docs" / "results"
SIZE = "size of the file in MiB"

QUESTIONS = (
    "it burns when I pee and I keep running to the loo",
    "throbbing headache on one side, light hurts my eyes and I feel sick",
    "I've had a dry cough and a fever for three days, no chest pain",
    "what are the symptoms of asthma?",
)
ROUNDS = 3


def measure(chat: Assistant) -> list[tuple[str, str, str]]:
    """Median and slowest milliseconds of ranking and of a whole answer, here and now."""
    ranking, answering = [], []
    for _ in range(ROUNDS):
        for question in QUESTIONS:
            with session.MODEL_LOCK:
                start = time.perf_counter()
                chat.judge(question)
                middle = time.perf_counter()
                chat.ask(question)
            ranking.append(1000 * (middle - start))
            answering.append(1000 * (time.perf_counter() - middle))
    return [
        (name, f"{np.median(times):.0f}", f"{max(times):.0f}")
        for name, times in (("ranking alone", ranking), ("whole answer, generated text included", answering))
    ]


def files(folder: Path) -> list[tuple[str, str, str]]:
    """Name, size and purpose of a bundle's files."""
    purpose = {
        "tokenizer.json": "words to tokens",
        "knowledge.json": "conditions, findings, red flags",
        "confidence.json": "calibration and thresholds",
        "manifest.json": "hashes of the files, recipe, sources, versions",
        "README.md": "the card",
    }
    return [
        (
            path.name,
            f"{path.stat().st_size / 2**20:.2f}" if path.stat().st_size > 2**20 / 100 else "< 0.01",
            purpose.get(path.name, "the network"),
        )
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.name in purpose or path.suffix == ".tflite")
    ]


def stage_points(chat: Assistant) -> pd.DataFrame:
    """One row per stage of the run that made this bundle: its size, and how often its first condition is right."""
    rows = [
        {
            "model": str(row["stage"]).removeprefix(".tflite "),
            SIZE: row["bytes"] / 2**20,
            "first condition right": row["accuracy"],
            "kind": "file for a phone" if str(row["stage"]).startswith(".tflite") else "on the way",
        }
        for row in chat.manifest.get("table", [])
    ]
    return pd.DataFrame(rows)


def family_points(found: dict[str, Any], suite: str) -> pd.DataFrame:
    """One row per model and precision of the compression benchmark."""
    rows = [
        {
            "model": f"{row['model']}, {row['precision']}",
            SIZE: row["bytes"] / 2**20,
            "among the first three": row["suites"][suite]["top"]["3"],
            "kind": str(row["precision"]),
        }
        for row in found.get("family", [])
        if suite in row["suites"]
    ]
    return pd.DataFrame(rows)


def size_against_quality(chat: Assistant) -> None:
    """What each stage of the run weighs and is worth, and the whole family where the benchmark was run."""
    from app.ui.charts import points

    st.header("Size against quality", anchor=False)
    table = stage_points(chat)
    if table.empty:
        st.caption("This bundle's manifest holds no table of stages.")
    else:
        points(table, SIZE, "first condition right", "model", "kind", ["on the way", "file for a phone"])
        rows = [
            (row["model"], row["kind"], f"{row[SIZE]:.1f}", f"{row['first condition right']:.1%}")
            for _, row in table.iterrows()
        ]
        with st.expander("Figures"):
            st.html(look.table(("model", "what it is", "MiB", "first right"), rows))
        st.caption(
            "Every stage of the run that made this bundle, on a part of the project's own text that it never saw."
        )
    path = RESULTS / "compression.json"
    if path.is_file():
        family(read_json(path))


def family(found: dict[str, Any]) -> None:
    """The family of the compression benchmark on one suite."""
    from app.ui.charts import points

    suites = sorted({name for row in found.get("family", []) for name in row["suites"]})
    if not suites:
        return
    st.subheader("The whole family", anchor=False)
    chosen = st.segmented_control(
        "On", suites, default=suites[0], key="family", required=True, format_func=look.suite
    )
    table = family_points(found, str(chosen))
    kinds = list(dict.fromkeys(table["kind"]))
    points(table, SIZE, "among the first three", "model", "kind", kinds)
    rows = [
        (row["model"], f"{row[SIZE]:.1f}", f"{row['among the first three']:.1%}")
        for _, row in table.iterrows()
    ]
    with st.expander("Figures"):
        st.html(look.table(("model", "MiB", "among the first three"), rows))


def strangers() -> None:
    """How often the right condition is found in words that nobody of the project wrote, beside plain baselines."""
    path = RESULTS / "evaluation.json"
    if not path.is_file():
        return
    st.header("On words of strangers", anchor=False)
    found = read_json(path)
    for name in dict.fromkeys(str(row["suite"]) for row in found):
        st.subheader(look.suite(name).capitalize(), anchor=False)
        rows = [
            (
                str(row["system"]),
                f"{row['top-1']:.0%}",
                f"{row['top-3']:.0%}",
                f"{row['top-3 interval'][0]:.0%} – {row['top-3 interval'][1]:.0%}",
                f"{row['top-5']:.0%}",
            )
            for row in found
            if row["suite"] == name
        ]
        st.html(
            look.table(("right condition is", "first", "in first 3", "95 % interval", "in first 5"), rows)
        )
    st.caption(
        "A condition that the knowledge does not hold counts as wrong. symptomchat evaluate measures it."
    )


def main() -> None:
    """The page."""
    st.title("Model", anchor=False)
    try:
        chat, _ = session.assistant(st.session_state.get("model"))
    except SymptomChatError as error:
        st.error(look.plain(str(error)))
        st.stop()
    recipe = chat.manifest.get("recipe", {}).get("name", "unknown")
    st.caption(
        look.plain(
            f"{chat.folder.name}, recipe {recipe}, answering with {chat.precision} weights on one thread."
        )
    )
    try:
        size_against_quality(chat)
        strangers()
    except (SymptomChatError, KeyError, TypeError, ValueError) as error:
        st.error(look.plain(f"a file of results is damaged or of another version ({error}); make it again"))
    st.header("Files", anchor=False)
    st.html(look.table(("file", "MiB", "what it holds"), files(chat.folder)))
    st.header("Speed on this machine", anchor=False)
    if st.button("Measure now", icon=":material/timer:"):
        with st.spinner(f"{ROUNDS * len(QUESTIONS)} questions …"):
            st.session_state.latency = (chat.precision, measure(chat))
    latency = st.session_state.get("latency")
    if latency:
        st.html(look.table(("milliseconds", "median", "slowest"), latency[1]))
        st.caption(
            f"{latency[0]}, {len(QUESTIONS)} questions {ROUNDS} times, on the machine that runs this page."
        )
    else:
        st.caption("Not measured yet: the button asks a few questions and times them.")
    st.header("Card", anchor=False)
    card = chat.folder / "README.md"
    if not card.is_file():
        st.caption("This bundle has no card (README.md).")
        return
    text = read_text(card)
    # The head between two lines of dashes is for machines.
    body = text.split("\n---", 1)[1].lstrip("-\n") if text.startswith("---") and "\n---" in text else text
    with st.container(border=True):
        lines = body.splitlines()
        st.markdown(
            "\n".join(
                f"{'###' if line.startswith('##') else '##'}{line}" if line.startswith("#") else line
                for line in lines
            )
        )


main()
