"""How far to trust the model: calibration, what the flag costs, and what must be flagged.

Read from ``docs/results/trust.json``, which ``symptomchat trust`` writes, and from the bundle's own
``confidence.json``.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from app.ui import look, session
from app.ui.charts import lines
from symptomchat import Assistant, SymptomChatError
from symptomchat.files import ROOT, read_json

MOST_ROWS = 20
TRUST = ROOT / "docs" / "results" / "trust.json"


def own_threshold(chat: Assistant) -> None:
    """A threshold of one's own, and what the bundle's risk table says of it."""
    st.header("Your own threshold", anchor=False)
    default = min(math.ceil(100 * chat.calibrator.threshold) / 100, 1.0)
    threshold = st.slider(
        "Flag every answer whose confidence is below", 0.0, 1.0, default, 0.01, key="threshold"
    )
    holds = [risk for risk, least in chat.calibrator.thresholds if threshold >= least]
    if holds:
        st.html(
            look.box(
                "do",
                f"At most {min(holds):.0%} of the answers above {threshold:.2f} are wrong",
                ["With 95 % confidence, for text like the model's own; on other text expect more."],
            )
        )
    else:
        least = min((t for _, t in chat.calibrator.thresholds), default=1.0)
        st.html(
            look.box(
                "doubt",
                "No stated risk holds at this threshold",
                [
                    f"The table begins at {least:.2f}: below it more answers are wrong than the largest risk it names."
                ],
            )
        )
    rows = [
        (f"{risk:.0%}", f"{least:.3f}" if least <= 1 else "none", "yes" if threshold >= least else "no")
        for risk, least in chat.calibrator.thresholds
    ]
    st.html(look.table(("wrong answers accepted", "least threshold", "kept by yours"), rows))
    st.caption("“none”: the calibration data could not show that any threshold keeps so small a risk.")


def reliability(found: dict[str, Any], kind: str) -> None:
    """Stated confidence against the share that was right."""
    st.subheader("Is the confidence what it says?", anchor=False)
    points = found.get("reliability", {}).get(kind)
    labelled = next(row for row in found["labelled"] if row["kind"] == kind)
    if points:
        table = pd.DataFrame(points)
        shown = pd.DataFrame(
            {
                "stated confidence": table["confidence"],
                "right": table["right"],
                "if it kept its word": table["confidence"],
            }
        )
        lines(shown, "stated confidence", "share right", percent=True)
        rows = [
            (
                f"{p['confidence']:.0%}",
                f"{p['right']:.0%}",
                f"{p['low']:.0%} – {p['high']:.0%}",
                str(p["number"]),
            )
            for p in points
        ]
        with st.expander("Figures"):
            st.html(look.table(("stated", "right", "95 % interval", "answers"), rows))
    else:
        st.caption(
            "The bins of the reliability diagram are not in docs/results/trust.json yet; symptomchat trust writes them."
        )
    st.html(
        look.table(
            ("", "value"),
            [
                ("questions", str(labelled["questions"])),
                ("right", f"{labelled['right']:.1%}"),
                ("expected calibration error", f"{labelled['ECE']:.3f}"),
                ("not flagged", f"{labelled['not flagged']:.1%}"),
                ("wrong among those", f"{labelled['wrong among those']:.1%}"),
                ("AUROC right from wrong", f"{labelled['AUROC confidence']:.3f}"),
            ],
        )
    )


def risk_coverage(found: dict[str, Any], kind: str) -> None:
    """Share wrong among the surest answers, by how many are kept."""
    st.subheader("What flagging buys", anchor=False)
    curve = found.get("risk coverage", {}).get(kind)
    if not curve:
        st.caption(
            "The risk-coverage curve is not in docs/results/trust.json yet; symptomchat trust writes it."
        )
        return
    table = pd.DataFrame(curve["points"])[["coverage", "risk"]]
    kept, wrong = "share of answers kept, the surest first", "share wrong"
    lines(table.rename(columns={"coverage": kept, "risk": "wrong"}), kept, wrong, percent=True)
    with st.expander("Figures"):
        rows = [(f"{row.coverage:.0%}", f"{row.risk:.1%}") for row in table.itertuples()]
        st.html(look.table(("kept", "wrong"), rows[:: max(1, len(rows) // MOST_ROWS)]))
    st.caption(
        f"Area {curve['area']:.3f}; best possible {curve['best area']:.3f}; no order at all {curve['random area']:.3f}."
    )


def flags(found: dict[str, Any]) -> None:
    """What must not be answered, and how much of it is flagged."""
    st.header("Flagged, by kind", anchor=False)
    st.caption("Questions that must not be answered; no step of the training saw them.")
    rows = [(row["kind"], f"{row['flagged']:.0%}", str(row["questions"])) for row in found["unanswerable"]]
    st.html(look.table(("kind", "flagged", "questions"), rows))
    red, triage = found["red flags"], found["triage"]
    st.header("Urgency", anchor=False)
    st.html(
        look.table(
            ("", "share"),
            [
                ("red flags found in their own phrasings", f"{red['recall']:.1%}"),
                ("red flags raised where self-care is enough", f"{red['fired on self-care']:.1%}"),
                ("urgency as in the knowledge base", f"{triage['same urgency']:.1%}"),
                ("urgency never less than that", f"{triage['never less urgent']:.1%}"),
            ],
        )
    )


def main() -> None:
    """The page."""
    st.title("Trust", anchor=False)
    try:
        chat, _ = session.assistant(st.session_state.get("model"))
        own_threshold(chat)
        if not TRUST.is_file():
            st.caption("docs/results/trust.json is not there yet; symptomchat trust --output writes it.")
            return
        found = read_json(TRUST)
        st.header("Measured", anchor=False)
        kinds = [row["kind"] for row in found["labelled"]]
        kind = st.segmented_control(
            "On", kinds, default=kinds[0], key="kind", required=True, format_func=look.suite
        )
        reliability(found, str(kind))
        risk_coverage(found, str(kind))
        flags(found)
    except SymptomChatError as error:
        st.error(look.plain(str(error)))
    except (KeyError, IndexError, StopIteration, TypeError) as error:
        st.error(look.plain(f"docs/results/trust.json: is of another version ({error}); write it again"))


main()
