"""Line charts for the pages that show figures.

In: a table with one column for the horizontal axis and one per line. Out: a chart on the page. Altair is loaded by the
pages that draw, never by the chat.
"""

from __future__ import annotations

import altair
import pandas as pd
import streamlit as st


def lines(table: pd.DataFrame, x: str, y: str, height: int) -> None:
    """Draw every other column of a table over column ``x``; lines differ by dashes as well as by colour.

    A screen reader passes over the lines, which Vega does not name; the page gives their figures as a table.
    """
    long = table.melt(id_vars=[x], var_name="line", value_name=y).dropna()
    several = long["line"].nunique() > 1
    chart = (
        altair.Chart(long)
        .mark_line(strokeWidth=2.5, aria=False)
        .encode(
            x=altair.X(f"{x}:Q", title=x),
            y=altair.Y(f"{y}:Q", title=y),
            color=altair.Color(
                "line:N", title=None, legend=altair.Legend(orient="bottom") if several else None
            ),
            strokeDash=altair.StrokeDash("line:N", legend=None),
        )
        .properties(height=height)
    )
    st.altair_chart(chart)
