"""The chat in the browser: ``streamlit run app/chat.py [-- --model FOLDER]``.

Runs on the runtime alone. Each answer shows, in this order: red flags, the mark of doubt with its reasons, the
reply, the ranked conditions as bars, and the generated symptoms and treatments, marked where no source has them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from symptomchat import Answer, Assistant, SymptomChatError, load
from symptomchat.runtime.regions import REGIONS

TRIAGE = {
    "emergency": "🚑 Emergency: get help now",
    "see_doctor": "🩺 See a doctor",
    "self_care": "🏠 Self-care may be enough",
    "unknown": "❔ Not known",
}
EXAMPLES = (
    "It burns when I pee and I keep running to the loo",
    "What are the symptoms of migraine?",
    "How is zorbitis treated?",
)


@st.cache_resource(show_spinner="Opening the model …")
def assistant(folder: str | None, risk: float | None = None) -> Assistant:
    """One assistant for all visitors of this server who accept the same risk."""
    return load(folder, risk=risk)


def model_folder() -> str | None:
    """Folder given after ``--`` on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    chosen = parser.parse_known_args()[0].model
    return str(chosen) if chosen else None


def claims(title: str, answer_claims: tuple[Any, ...]) -> None:
    """Generated symptoms or treatments; what no source supports is marked in words."""
    if answer_claims:
        marked = [c.text if c.grounded else f"{c.text} **(not in my sources)**" for c in answer_claims]
        st.markdown(f"**{title}:** " + " · ".join(marked))


def transcript(turns: list[tuple[str, Answer | str]]) -> str:
    """The conversation as plain text, for one's doctor."""
    lines = ["SymptomChat. Information, not diagnosis.", ""]
    for question, answer in turns:
        lines += [f"> {question}", "", answer if isinstance(answer, str) else answer.reply, ""]
    return "\n".join(lines)


def show(answer: Answer, number: str) -> None:
    """One answer; ``number`` is the emergency number of the chosen region."""
    if answer.red_flags:
        st.error(
            f"**This may be an emergency. Call your emergency number now: {number}.** "
            + "; ".join(answer.red_flags),
            icon="🚨",
        )
    if answer.flagged:
        st.warning("**May be made up.** " + " ".join(answer.reasons), icon="⚠️")
    st.text(answer.reply)
    if len(answer.likely) > 1:
        st.markdown("**Most likely one of these:** " + ", ".join(answer.likely))
    if answer.intent != "none":
        table = pd.DataFrame(
            {
                "condition": [c.name for c in answer.conditions[:5]],
                "probability": [100 * c.probability for c in answer.conditions[:5]],
            }
        )
        st.dataframe(
            table,
            hide_index=True,
            width="stretch",
            column_config={
                "probability": st.column_config.ProgressColumn(
                    "probability", format="%.0f %%", min_value=0, max_value=100
                )
            },
        )
        claims("Symptoms", answer.symptoms)
        claims("Treatment", answer.treatments)
    st.caption(f"{TRIAGE[answer.triage]} · confidence {answer.confidence:.0%} · {answer.milliseconds:.0f} ms")


def main() -> None:
    """The page."""
    st.set_page_config(page_title="SymptomChat", page_icon="🩺")
    st.title("SymptomChat")
    st.caption(
        "Information, not diagnosis. In an emergency call your emergency number. Nothing you type leaves this machine."
    )
    try:
        chat = assistant(model_folder())
    except SymptomChatError as error:
        st.error(str(error))
        st.stop()
    turns: list[tuple[str, Answer | str]] = st.session_state.setdefault("turns", [])
    with st.sidebar:
        st.markdown(f"**Model** `{chat.folder.name}`  \n{len(chat.conditions)} conditions")
        risk = st.select_slider(
            "Wrong answers to accept among those not marked as doubtful",
            [risk for risk, _ in chat.calibrator.thresholds],
            value=chat.calibrator.risk,
            format_func="{:.0%}".format,
            help="Holds for text like the model's own; on other text expect more. Applies to the next question.",
        )
        number = REGIONS[st.selectbox("Region, for the emergency number", list(REGIONS))]
        if turns:
            st.download_button(
                "Download the conversation", transcript(turns), "symptomchat.txt", width="stretch"
            )
        if st.button("Clear the conversation", width="stretch"):
            turns.clear()
    if not turns:
        st.markdown("Describe what you feel and since when, or ask about a condition. For example:")
        for example in EXAMPLES:
            st.markdown(f"- {example}")
    for question, answer in turns:
        with st.chat_message("user"):
            st.text(question)
        with st.chat_message("assistant"):
            if isinstance(answer, str):
                st.error(answer)
            else:
                show(answer, number)
    typed = st.chat_input("What do you feel?", max_chars=10_000)
    if typed:
        try:
            turns.append((typed, assistant(model_folder(), risk).ask(typed)))
        except SymptomChatError as error:
            turns.append((typed, str(error)))
        st.rerun()


main()
