"""The model that answers here: its files, how fast it is on this machine, and its card."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import streamlit as st

from app.ui import look, session
from symptomchat import Assistant, SymptomChatError
from symptomchat.files import read_text

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
        (path.name, f"{path.stat().st_size / 2**20:.2f}", purpose.get(path.name, "the network"))
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.name in purpose or path.suffix == ".tflite")
    ]


def main() -> None:
    """The page."""
    st.title("Model", anchor=False)
    try:
        chat, _ = session.assistant(st.session_state.get("precision"))
    except SymptomChatError as error:
        st.error(look.plain(str(error)))
        st.stop()
    recipe = chat.manifest.get("recipe", {}).get("name", "unknown")
    st.caption(
        look.plain(
            f"{chat.folder.name}, recipe {recipe}, answering with {chat.precision} weights on one thread."
        )
    )
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
        st.markdown("\n".join(f"##{line}" if line.startswith("#") else line for line in body.splitlines()))


main()
