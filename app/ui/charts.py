"""Charts for the pages that show figures.

In: a table with one column for the horizontal axis and one per line, or one row per point. Out: a chart on the page.
Altair is loaded by the pages that draw, never by the chat. A screen reader passes over the marks, which Vega does not
name; the page gives their figures as a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair
import pandas as pd
import streamlit as st

HEIGHT = 260
"""Pixels, legend and axes included: what is left of less is too flat to be read."""
DASHES = ([1, 0], [6, 4], [2, 3])


def lines(
    table: pd.DataFrame, x: str, y: str, whole: bool = False, percent: bool = False, top: float | None = None
) -> None:
    """Draw every other column of a table over column ``x``; lines differ by dashes as well as by colour.

    Args:
        whole: whether ``x`` counts something, such as epochs.
        percent: whether both axes are shares.
        top: end of the vertical axis, for charts that stand beside each other.
    """
    long = table.melt(id_vars=[x], var_name="line", value_name=y).dropna()
    names = [name for name in table.columns if name != x]
    legend = altair.Legend(orient="top", symbolType="stroke", symbolSize=400) if len(names) > 1 else None
    axis = altair.Axis(format="%") if percent else altair.Axis()
    along = altair.Axis(format="d", tickMinStep=1, tickCount=len(table)) if whole else axis
    scale = altair.Scale(domain=[0, top]) if top else altair.Scale()
    chart = (
        altair.Chart(long)
        .mark_line(strokeWidth=2.5, aria=False, point=whole)
        .encode(
            x=altair.X(f"{x}:Q", title=x, axis=along, scale=altair.Scale(zero=False)),
            y=altair.Y(f"{y}:Q", title=y, axis=axis, scale=scale),
            color=altair.Color("line:N", title=None, sort=names, legend=legend),
            strokeDash=altair.StrokeDash(
                "line:N",
                title=None,
                legend=legend,
                scale=altair.Scale(domain=names, range=list(DASHES[: len(names)])),
            ),
        )
        .properties(height=HEIGHT)
    )
    st.altair_chart(chart)


def points(table: pd.DataFrame, x: str, y: str, name: str, kind: str, kinds: Sequence[str]) -> None:
    """Draw one named point per row; kinds differ by shape as well as by colour.

    Args:
        x: column of a size, drawn on a logarithmic axis.
        y: column of shares.
        name: column of what is written beside a point.
    """
    across = altair.X(f"{x}:Q", title=x, scale=altair.Scale(type="log", nice=False, padding=30))
    up = altair.Y(f"{y}:Q", title=y, axis=altair.Axis(format="%"), scale=altair.Scale(zero=False, padding=20))
    legend = altair.Legend(orient="top")
    base = altair.Chart(table).encode(x=across, y=up)
    marks = base.mark_point(size=110, filled=True, aria=False).encode(
        color=altair.Color(f"{kind}:N", title=None, sort=list(kinds), legend=legend),
        shape=altair.Shape(f"{kind}:N", title=None, sort=list(kinds), legend=legend),
        tooltip=[name, x, y],
    )
    # Names stand on the side where there is room.
    half = float(table[x].min() * table[x].max()) ** 0.5
    left, right = altair.datum[x] <= half, altair.datum[x] > half
    names = base.encode(text=f"{name}:N")
    small = names.transform_filter(left).mark_text(align="left", dx=9, fontSize=12, aria=False)
    large = names.transform_filter(right).mark_text(align="right", dx=-9, fontSize=12, aria=False)
    st.altair_chart((marks + small + large).properties(height=HEIGHT + 80))
