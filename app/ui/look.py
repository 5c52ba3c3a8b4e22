"""How things look: small pieces of HTML over the theme, each a pure function from values to a string.

Every value is escaped; nothing that a person or a file says becomes markup. Colours are mixed from the current text
colour and a few middle tones, so that one sheet serves the light and the dark theme. Nothing rests on colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape as escape

from app.ui.units import METRIC, in_units
from symptomchat.runtime.assistant import Claim, ConditionProbability
from symptomchat.runtime.explain import MATTERS, Span

STYLE = """<style>
.block-container, [data-testid="stMainBlockContainer"] {max-width: 52rem; padding-top: 4.5rem; padding-bottom: 2rem}
[data-testid="stBottomBlockContainer"] {max-width: 52rem; padding: .75rem 1rem 1.25rem}
/* What the tab key reaches is never under the alarm above or the box below. */
[data-testid="stAppScrollToBottomContainer"] {scroll-padding: 9rem 0 8rem}
div:has(> .st-key-alarm) {position: sticky; top: 3.75rem; z-index: 60}
div:has(> .st-key-alarm):not(:has([role="alert"])) {display: none}
.st-key-alarm [data-testid="stAlert"] {background: #b3261e; border-radius: .75rem; box-shadow: 0 6px 24px rgb(0 0 0 / .25)}
.st-key-alarm [data-testid="stAlert"] * {color: #fff !important; background: transparent}
.st-key-question {border-color: color-mix(in srgb, #14b8a6 60%, transparent) !important;
  background: color-mix(in srgb, #14b8a6 8%, transparent)}
[data-testid="stCaptionContainer"] {color: inherit; opacity: .82}
/* What is drawn after a growing answer stays as it is until then. */
[data-stale="true"] {opacity: 1 !important; transition: none !important}
h1 {font-size: 1.9rem !important; padding: 0 0 .25rem !important}
h2 {font-size: 1.3rem !important; padding: .75rem 0 .25rem !important}
h3 {font-size: 1.05rem !important}
[data-testid="stSidebar"] [data-testid="stMarkdownContainer"]:has(h3) {margin-bottom: -.55rem}
.st-key-question {gap: .5rem !important}
.st-key-question [data-testid="stMarkdownContainer"], .st-key-question [data-testid="stCaptionContainer"] {margin: 0 !important}
.st-key-question p {margin: 0 !important}
[data-testid="stChatMessageContent"] > [data-testid="stVerticalBlock"] {gap: .35rem}
.sc {font-size: 1rem; line-height: 1.5; overflow-wrap: anywhere}
.sc .said {white-space: pre-wrap; unicode-bidi: plaintext}
/* Marks come after the message was shown: they change no width, so that nothing moves. */
.sc mark {background: color-mix(in srgb, #f59e0b calc(var(--w) * 1%), transparent); color: inherit;
  text-decoration: underline solid 2px #d97706; text-underline-offset: .2em; border-radius: 3px}
.sc mark.against {background: none; text-decoration: underline dotted 2px currentColor}
.sc .note {font-size: .875rem; opacity: .8; border-left: 3px solid #14b8a6; padding-left: .6rem; margin-bottom: .5rem}
.sc h4 {font-size: .875rem; font-weight: 650; margin: .9rem 0 .35rem; padding: 0}
.sc h4 small {font-weight: 400; font-size: .8125rem; opacity: .85}
.sc + .sc > h4 {margin-top: .9rem !important}
.sc > h4:first-child, .sc details > .sc:first-of-type > h4 {margin-top: .25rem}
.sc details {margin: .2rem 0} .sc summary {cursor: pointer; font-size: .95rem; padding: .35rem 0; width: fit-content}
.sc summary:focus-visible {outline: 2px solid #14b8a6; outline-offset: 3px; border-radius: .25rem}
.sc .row {display: grid; grid-template-columns: minmax(0, 1fr) 3.5rem; gap: .1rem .75rem; margin: .4rem 0}
.sc .row b, .sc .row span.name {font-size: .95rem}
.sc .row .percent {text-align: right; font-variant-numeric: tabular-nums; font-size: .95rem}
.sc .track {grid-column: 1 / -1; height: .5rem; border-radius: .25rem; overflow: hidden;
  background: color-mix(in srgb, currentColor 12%, transparent)}
.sc .fill {height: 100%; border-radius: .25rem; background: #0d9488; min-width: 2px}
.sc .row.rest .fill {background: color-mix(in srgb, currentColor 45%, transparent)}
.sc .small {font-size: .8125rem; opacity: .85; margin-top: .35rem}
.sc ul.chips {display: flex; flex-wrap: wrap; gap: .35rem; list-style: none; padding: 0; margin: 0}
.sc .chips li {font-size: .875rem; line-height: 1.35; padding: .2rem .65rem; margin: 0; border-radius: 1rem;
  border: 1px solid color-mix(in srgb, #14b8a6 65%, transparent); background: color-mix(in srgb, #14b8a6 10%, transparent)}
.sc .chips li.none {border: 1px dashed #d97706; background: color-mix(in srgb, #f59e0b 12%, transparent); border-radius: .3rem}
.sc .chips li.mine {border: 2px solid #0d9488; background: color-mix(in srgb, #14b8a6 22%, transparent); font-weight: 600}
.sc .chips li small {opacity: .9; font-size: .8rem; font-weight: 400}
.sc .chips li.none.mine {border: 2px dashed #d97706; background: color-mix(in srgb, #f59e0b 18%, transparent)}
.sc .box {border-radius: .6rem; padding: .6rem .8rem; margin: .6rem 0; border-left: 4px solid}
.sc .box p {margin: .15rem 0} .sc .box p:first-child {font-size: 1.05rem}
.sc .box.doubt {border-color: #d97706; background: color-mix(in srgb, #f59e0b 13%, transparent)}
.sc .box.red {border-color: #dc2626; background: color-mix(in srgb, #dc2626 13%, transparent)}
.sc .box.do {border-color: #0d9488; background: color-mix(in srgb, #14b8a6 10%, transparent)}
.sc .box.grey {border-color: color-mix(in srgb, currentColor 40%, transparent);
  background: color-mix(in srgb, currentColor 6%, transparent)}
.sc table {border-collapse: collapse; width: 100%; font-size: .9rem; margin: .3rem 0}
.sc th {text-align: left; font-weight: 650; font-size: .8125rem; opacity: .85}
.sc th, .sc td {padding: .3rem .5rem .3rem 0; border: 0; border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent)}
.sc td.n, .sc th.n {text-align: right; font-variant-numeric: tabular-nums}
.sc .scroll {overflow-x: auto}
.sc ul, .sc ol {margin: 0; padding-left: 1.2rem}
[data-testid="stChatMessage"] {padding: .5rem .9rem; gap: .6rem; background: none}
[data-testid="stChatMessage"] > div {gap: .6rem}
/* A person's own words stand on a ground of their own, so that who speaks is seen without the signs beside them. */
[data-testid="stChatMessage"]:has(.said) {background: color-mix(in srgb, #14b8a6 9%, transparent);
  border: 1px solid color-mix(in srgb, #14b8a6 25%, transparent)}
[class*="st-key-tools-"] {gap: .25rem .5rem !important}
[class*="st-key-names"] {display: grid !important; grid-template-columns: repeat(auto-fill, minmax(14.5rem, 1fr));
  gap: .5rem .75rem !important}
/* Links from one condition to another lead to the page that is open, which Streamlit would mark on each of them. */
[data-testid="stPageLink"] a:not(:hover):not(:focus-visible) {background: none}
[data-testid="stPageLink"] a p {font-weight: 400}
[class*="st-key-names"] > div, [class*="st-key-names"] [data-testid="stPageLink"] {width: 100% !important}
[class*="st-key-names"] a {max-width: 100%} [class*="st-key-names"] a p {white-space: normal}
[data-testid="stSidebar"] h3 {font-size: 1rem !important; padding: .25rem 0 0}
[data-testid="stSidebarHeader"] {margin-bottom: -.75rem}
/* On the sidebar's ground the chosen segment's own tint would leave its letters too little contrast. */
[data-testid="stSidebar"] button[role="radio"][aria-checked="true"] {background: transparent}
[data-testid="stSidebar"] button[role="radio"][aria-checked="true"] p {font-weight: 650}
@media (max-width: 480px) {
  .block-container, [data-testid="stMainBlockContainer"] {padding-left: .75rem; padding-right: .75rem}
  [data-testid="stBottomBlockContainer"] {padding: .5rem .75rem .75rem}
  [data-testid="stChatMessage"] {padding: .6rem .75rem; gap: .5rem}
  [data-testid="stChatMessage"]:not(:has(.said)) {padding: .25rem 0}
  [data-testid="stChatMessage"]:not(:has(.said)) > [data-testid="stChatMessageAvatarCustom"] {display: none}
}
</style>"""

SUITES = {
    "patient_sentences_dev.csv": "patients' sentences",
    "vignettes_dev.jsonl": "clinical vignettes",
    "own, unseen": "the project's own text",
}
"""What the texts are that a file of results names by its own name."""


def suite(name: str) -> str:
    """A suite's name in words; an unknown one keeps its own."""
    return SUITES.get(name, name)


TRIAGE = {
    "emergency": ("This can be an emergency", "red"),
    "see_doctor": ("See a doctor about this", "do"),
    "self_care": ("Self-care may be enough", "do"),
    "unknown": ("Urgency not known", "grey"),
}
"""Heading and kind of box of each urgency."""


def becomes_emergency(when: str) -> str:
    """When a condition is an emergency, as a phrase, from the sources' words for it; empty where they say never."""
    first = re.match(
        r"(always|rarely|(?:never|not)(?: an emergency| on its own| by itself| usually)?)\b[,:;]?\s*", when
    )
    if first:
        rest = when[first.end() :]
        if when.startswith(("never", "not")):
            return f"by itself no emergency; {rest}." if rest else ""
        return f"{first[1]} an emergency{f': {rest}' if rest else ''}."
    if re.match(r"(when|if|with)\b", when):
        return f"becomes an emergency {when}."
    if when.startswith(("see ", "seek ")):
        return f"{when}."
    return f"signs of an emergency: {when}." if when else ""


def sentence(text: str) -> str:
    """A phrase with a capital."""
    return text[:1].upper() + text[1:]


def wrap(inner: str) -> str:
    """A piece in the scope of the style sheet."""
    return f'<div class="sc">{inner}</div>'


def plain(text: str) -> str:
    """Text as Markdown that shows it letter for letter."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!~|<>$:&])", r"\\\1", text.replace("\n", " "))


def said(text: str, spans: Sequence[Span] = ()) -> str:
    """A person's message; the words that mattered are marked: underlined and shaded, stronger where they weigh more."""
    top = max((span.effect for span in spans), default=0.0)
    parts, at = [], 0
    for span in spans:
        parts.append(escape(text[at : span.begin]))
        word = escape(text[span.begin : span.end])
        if span.effect >= MATTERS:
            weight = round(12 + 30 * span.effect / top)
            parts.append(
                f'<mark style="--w:{weight}" title="speaks for the first condition: {span.effect:+.2f}">{word}</mark>'
            )
        elif span.effect <= -MATTERS:
            parts.append(f'<mark class="against" title="speaks against it: {span.effect:+.2f}">{word}</mark>')
        else:
            parts.append(word)
        at = span.end
    parts.append(escape(text[at:]))
    return wrap(f'<div class="said" dir="auto">{"".join(parts)}</div>')


def legend(first: str, spans: Sequence[Span]) -> str:
    """What the marks of a message mean."""
    marks = [f"<mark style='--w:30'>Underlined</mark> words in your message speak for {escape(first)}"]
    if any(span.effect <= -MATTERS for span in spans):
        marks.append("<mark class='against'>dotted</mark> ones against it")
    return wrap(f'<div class="small">{", ".join(marks)}.</div>')


def note(text: str) -> str:
    """What was done with a message."""
    return wrap(f'<div class="note" dir="auto">{escape(text)}</div>')


def share(part: float) -> str:
    """A share as everywhere on the page: whole percent, and in words of their own what rounds to none of it."""
    return f"{100 * part:.0f} %" if part >= 0.01 else "< 1 %"


def bars(ranked: Sequence[ConditionProbability], likely: Sequence[str], title: str = "What may fit") -> str:
    """Ranked conditions as horizontal bars; those in the prediction set are bold.

    Beyond the first three, what has less than one percent is left out: it is a name that frightens and tells nothing.
    """
    rows = []
    for condition in (*ranked[:3], *(c for c in ranked[3:] if c.probability >= 0.01 or c.name in likely)):
        percent = 100 * condition.probability
        shown = share(condition.probability)
        inside = condition.name in likely
        name = (
            f"<b>{escape(condition.name)}</b>"
            if inside
            else f'<span class="name">{escape(condition.name)}</span>'
        )
        rows.append(
            f'<div class="row{"" if inside else " rest"}">{name}<span class="percent">{shown}</span>'
            f'<div class="track" role="meter" aria-label="{escape(condition.name)}" aria-valuemin="0" aria-valuemax="100" '
            f'aria-valuenow="{percent:.0f}"><div class="fill" style="width:{max(0.0, min(100.0, percent)):.1f}%"></div></div></div>'
        )
    return wrap(f"<h4>{escape(title)}</h4>{''.join(rows)}")


def chips(
    title: str,
    claims: Sequence[Claim],
    supports: Sequence[str | None],
    mine: Sequence[bool | None] = (),
    units: str = METRIC,
) -> str:
    """Generated findings: round where my sources hold them (and which one), square and dashed where none does.

    Args:
        mine: for each claim whether the person named it (True), denied it (False) or said nothing of it (None); those
            that were named have a heavy border, and words say which is which.
    """
    items = []
    for at, (claim, record) in enumerate(zip(claims, supports, strict=True)):
        said = mine[at] if at < len(mine) else None
        words = []
        if record is None:
            words.append("not in my sources")
        elif record.lower() != claim.text.lower():
            words.append(f"source: {in_units(record, units)}")
        if said is not None:
            words.append("you have this" if said else "you do not have this")
        kinds = " ".join((*(["none"] if record is None else []), *(["mine"] if said else [])))
        note = f" <small>{escape(' · '.join(words))}</small>" if words else ""
        text = f"{'✗' if record is None else '✓'} {escape(in_units(claim.text, units))}{note}"
        items.append(f'<li class="{kinds}">{text}</li>' if kinds else f"<li>{text}</li>")
    how = "written by the model; ✓ is in my sources, ✗ is not"
    head = f"<h4>{escape(title)} <small>{how}</small></h4>"
    return wrap(f'{head}<ul class="chips">{"".join(items)}</ul>') if items else ""


def box(kind: str, heading: str, lines: Sequence[str] = ()) -> str:
    """A marked-off paragraph: doubt, red, do or grey."""
    inner = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return wrap(f'<div class="box {kind}"><p><b>{escape(heading)}</b></p>{inner}</div>')


def folded(summary: str, inner: str) -> str:
    """Markup of this module behind a line that opens it."""
    return wrap(f"<details><summary>{escape(summary)}</summary>{inner}</details>")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text; all columns but the first are numbers where every cell of theirs begins with one."""
    numeric = [
        at > 0 and all(re.match(r"^[<–\d.,+-]", row[at]) for row in rows if row[at])
        for at in range(len(head))
    ]
    cells = [
        f"<th{' class=n' if n else ''}>{escape(name)}</th>" for name, n in zip(head, numeric, strict=True)
    ]
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if n else ''}>{escape(cell)}</td>" for cell, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )  # fmt: skip
    return wrap(
        f'<div class="scroll"><table><thead><tr>{"".join(cells)}</tr></thead><tbody>{body}</tbody></table></div>'
    )
