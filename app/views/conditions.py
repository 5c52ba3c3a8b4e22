"""What the knowledge base holds of each condition: found by any of its names, told in full.

In: the search words, or a name in the page's address. Out: profile, other names, findings with how often, what it
is mistaken for, treatment, self-care and when it is an emergency.
"""

from __future__ import annotations

import difflib
from typing import Any

import streamlit as st

from app.ui import look, session
from app.ui.units import METRIC, in_units
from symptomchat import Assistant, SymptomChatError
from symptomchat.runtime.findings import frequencies
from symptomchat.runtime.grounding import normal

SHOWN = 12  # names that a search lists


def find(chat: Assistant, words: str) -> list[str]:
    """Conditions whose name or other name holds the words, exact names first; else those spelt nearly so."""
    wanted = normal(words)
    if not wanted:
        return []
    exact = [chat.names[wanted]] if wanted in chat.names else []
    starts = [name for key, name in chat.names.items() if key.startswith(wanted)]
    inside = [name for key, name in chat.names.items() if f" {wanted}" in f" {key}"]
    found = list(dict.fromkeys(exact + starts + inside))
    if not found:
        near = difflib.get_close_matches(wanted, list(chat.names), n=SHOWN, cutoff=0.75)
        found = list(dict.fromkeys(chat.names[key] for key in near))
    return found[:SHOWN]


def how_often(record: dict[str, Any], units: str = METRIC) -> str:
    """Findings as bars, the most frequent first; an older bundle has their order alone, and then a list is shown."""
    if "frequencies" not in record:
        items = "".join(f"<li>{look.escape(name)}</li>" for name in record["symptoms"])
        return look.wrap(f"<ol>{items}</ol>")
    rows = []
    pairs = zip(record["symptoms"], frequencies(record), strict=True)
    for name, share in sorted(pairs, key=lambda pair: -pair[1]):
        percent, name = f"{100 * share:.0f} %", in_units(name, units)
        meter = f'role="meter" aria-label="{look.escape(name)}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}"'
        rows.append(
            f'<div class="row"><span class="name">{look.escape(name)}</span><span class="percent">{percent}</span>'
            f'<div class="track" {meter}><div class="fill" style="width:{100 * share:.0f}%"></div></div></div>'
        )
    return look.wrap("".join(rows))


def show(chat: Assistant, record: dict[str, Any]) -> None:
    """One condition."""
    units = st.session_state.get("units", METRIC)
    st.header(look.plain(record["name"]), anchor=False)
    parts = []
    if record["aliases"]:
        parts.append(
            look.wrap(f'<div class="small">Also called: {look.escape("; ".join(record["aliases"]))}</div>')
        )
    heading, kind = look.TRIAGE[record["urgency"]]
    when = look.sentence(look.becomes_emergency(record["emergency_when"] or ""))
    parts.append(look.box(kind, heading, [in_units(when, units)] if when else []))
    st.html("".join(parts))
    st.subheader("Findings", anchor=False)
    st.caption(
        "Of those who have the condition, how many show each; estimates of the sources."
        if "frequencies" in record
        else "The most typical first; this bundle holds their order, not how often."
    )
    st.html(how_often(record, units))
    for title, items in (("Treatment", record["treatments"]), ("Self-care", record["self_care"])):
        st.subheader(title, anchor=False)
        if items:
            listed = "".join(f"<li>{look.escape(in_units(item, units))}</li>" for item in items)
            st.html(look.wrap(f"<ul>{listed}</ul>"))
        else:
            st.caption("The sources list none.")
    st.subheader("Mistaken for", anchor=False)
    if not record["confusable"]:
        st.caption("The sources list nothing.")
    for other in record["confusable"]:
        with st.container(border=True, gap="xxsmall"):
            if other["name"] in {c["name"] for c in chat.conditions}:
                st.page_link(
                    "views/conditions.py", label=look.plain(other["name"]), icon=":material/menu_book:",
                    query_params={"name": other["name"]},
                )  # fmt: skip
            else:
                st.markdown(f"**{look.plain(other['name'])}**")
            st.html(look.wrap(f"What tells it apart: {look.escape(in_units(other['difference'], units))}."))


def source(chat: Assistant) -> None:
    """Where all of this comes from, as the bundle's manifest records it."""
    names = [str(found["name"]) for found in chat.manifest.get("sources", []) if "name" in found]
    st.subheader("Source", anchor=False)
    st.caption(
        look.plain(
            f"The knowledge that comes with the model {chat.folder.name}, from {', '.join(names) or 'unnamed data'}. "
            "Not reviewed by physicians."
        )
    )


def forget_address() -> None:
    """A new search leaves the condition that the address names."""
    st.query_params.clear()


def main() -> None:
    """The page."""
    st.title("Conditions", anchor=False)
    try:
        chat, _ = session.assistant(st.session_state.get("model"))
    except SymptomChatError as error:
        st.error(look.plain(str(error)))
        st.stop()
    st.caption(
        f"{len(chat.conditions)} conditions under {len(chat.names):,} names. Information, not diagnosis."
    )
    st.page_link("views/talk.py", label="Back to the chat", icon=":material/arrow_back:")
    words = st.text_input(
        "Search by any name",
        placeholder="e.g. heart attack, AF, gout",
        on_change=forget_address,
        key="search",
    )
    named = chat.names.get(normal(st.query_params.get("name", "")))
    if named is None:
        found = find(chat, words)
        if words and not found:
            st.html(look.box("doubt", f"No condition is called “{words[:80]}”", ["Try another name for it."]))
            return
        if not found:
            letters = sorted({record["name"][0].upper() for record in chat.conditions})
            letter = st.pills("Or by its first letter", letters, default=letters[0], key="letter")
            found = (
                sorted(r["name"] for r in chat.conditions if r["name"][0].upper() == letter) if letter else []
            )
        if len(found) == 1 or normal(words) in chat.names:
            named, found = found[0], found[1:]
        if found:
            with st.container(key="names"):
                for name in found:
                    st.page_link(
                        "views/conditions.py", label=look.plain(name), icon=":material/menu_book:", query_params={"name": name}
                    )  # fmt: skip
    if named is not None:
        show(chat, next(record for record in chat.conditions if record["name"] == named))
        source(chat)


main()
