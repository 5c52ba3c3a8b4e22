"""The chat: messages on one side, answers on the other, one question at a time to narrow things down.

An answer shows, in this order: red flags, what was done with the message, the mark of doubt with its reasons, the
ranked conditions as bars, what to do, and the generated findings marked by source. All but the last is there at
once; the findings are added one by one below it, so that nothing that can be read already moves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.ui import look, session
from app.ui.store import VERDICTS, Store
from symptomchat import Answer, Assistant, SymptomChatError
from symptomchat.runtime.dialogue import Conversation, Turn
from symptomchat.runtime.explain import MATTERS
from symptomchat.runtime.grounding import normal, supported
from symptomchat.runtime.inquiry import ANSWERS, MOST_QUESTIONS
from symptomchat.runtime.regions import REGIONS

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

EXAMPLES = (
    "It burns when I pee and I keep running to the loo",
    "What are the symptoms of migraine?",
    "How is zorbitis treated?",
)
BARS = 5
LINKS = 3
YOU, ME = ":material/person:", ":material/stethoscope:"
MARKED = ("case", "follow_up", "correction", "new_topic", "aside")
"""Kinds of turns whose own words the model read; a reply's words are the question's."""
BREATH = 0.015
"""Seconds after each piece of an answer in which the server's own thread sends it: the two share one interpreter,
and the next tokens would hold it."""
NO_SOURCE = "Not in my sources"
SEVERAL = "What you describe fits several conditions; I cannot tell them apart from this."


def record_of(chat: Assistant, name: str) -> dict[str, Any] | None:
    """The knowledge base's record of a condition."""
    return next((record for record in chat.conditions if record["name"] == name), None)


def alarm(place: DeltaGenerator, talk: Conversation, number: str) -> None:
    """The red flags of the case, above everything else, as an alert that stays in view."""
    if not talk.red_flags:
        place.empty()
        return
    place.error(
        f"**This may be an emergency. Call {number} now.** {look.plain('; '.join(talk.red_flags))}.",
        icon=":material/emergency_home:",
    )


def claims(chat: Assistant, answer: Answer) -> str:
    """The generated findings as chips."""
    record = record_of(chat, answer.conditions[0].name) or {"symptoms": [], "treatments": []}
    parts = []
    for title, given, known in (
        (f"Symptoms of {answer.conditions[0].name}, as generated", answer.symptoms, record["symptoms"]),
        ("Treatment, as generated", answer.treatments, record["treatments"]),
    ):
        parts.append(look.chips(title, given, [supported(c.text, known, chat.phrasings) for c in given]))
    return "".join(parts)


def what_to_do(chat: Assistant, answer: Answer, number: str) -> str:
    """Urgency and the next step, in a box."""
    heading, kind = look.TRIAGE[answer.triage]
    record = record_of(chat, answer.conditions[0].name) if answer.intent != "none" else None
    lines = []
    if answer.triage == "emergency":
        lines.append(f"Call {number}.")
    if answer.intent == "none":
        lines.append("If you feel ill, describe what you feel and since when, or ask a doctor.")
    elif record is not None:
        if answer.triage == "self_care" and record["self_care"]:
            lines.append(f"What helps: {', '.join(record['self_care'])}.")
        when = record["emergency_when"]
        if when and answer.triage != "emergency" and not when.startswith("never"):
            lines.append(f"{record['name']} becomes an emergency {when}.")
    return look.box(kind, heading, lines)


def known_condition(chat: Assistant, name: str) -> str:
    """What the sources say of a condition that was asked about by a known name."""
    record = record_of(chat, name)
    if record is None:
        return ""
    lines = [f"Findings, the most typical first: {', '.join(record['symptoms'][:8])}."]
    if record["treatments"]:
        lines.append(f"Treatment: {', '.join(record['treatments'])}.")
    return look.box("grey", f"{name}, from my sources", lines)


def doubts(answer: Answer) -> list[str]:
    """Why an answer is doubtful. That a claim is in no source is said on its chip: it is known only once the claim
    is written, and what is above the chips must not grow then."""
    kept = [reason for reason in answer.reasons if not reason.startswith(NO_SOURCE)]
    return kept or [SEVERAL]


def head(chat: Assistant, turn: Turn, number: str) -> str:
    """All of an answer that is known before a claim is generated, the most urgent first."""
    answer = turn.answer
    if turn.kind == "error":
        return look.box("doubt", "This could not be used", [turn.note])
    parts = [look.note(turn.note)] if turn.note else []
    if answer is None:
        return "".join(parts)
    if answer.red_flags:
        advice = [line for line in answer.reply.split("\n") if line.split(":")[0] in answer.red_flags]
        parts.insert(0, look.box("red", f"Red flag: call {number} now", advice))
    if turn.about:
        parts.append(known_condition(chat, turn.about))
    if answer.flagged:
        parts.append(look.box("doubt", "⚠ May be made up", doubts(answer)))
    if answer.intent != "none":
        parts.append(look.bars(answer.conditions[:BARS], answer.likely))
        more = [name for name in answer.likely if name not in {c.name for c in answer.conditions[:BARS]}]
        if more:
            parts.append(look.wrap(f'<div class="small">Also possible: {look.escape(", ".join(more))}</div>'))
    parts.append(what_to_do(chat, answer, number))
    return "".join(parts)


def tail(chat: Assistant, turn: Turn, finished: bool) -> str:
    """What an answer says of the condition that comes first, claim by claim, and how sure it is."""
    answer = turn.answer
    if answer is None:
        return ""
    sure = f"confidence {answer.confidence:.0%}"
    sure += f" · {answer.milliseconds:.0f} ms on this machine" if finished else " · writing …"
    parts = [claims(chat, answer)] if answer.intent != "none" else []
    return "".join([*parts, look.wrap(f'<div class="small">{sure}</div>')])


def tools(talk: Conversation, at: int) -> None:
    """What can be done with one answer: see which words mattered, read on."""
    turn = talk.turns[at]
    if turn.answer is None or turn.answer.intent == "none":
        return
    spans = st.session_state.explained.get(at)
    if spans and any(abs(span.effect) >= MATTERS for span in spans):
        first = turn.answer.conditions[0].name
        st.html(look.legend(first, spans))
    with st.container(horizontal=True, vertical_alignment="center", key=f"tools-{at}"):
        if spans is None and turn.kind in MARKED:
            st.button(
                "Which words mattered?", key=f"explain-{at}", on_click=explain, args=(at,), type="tertiary"
            )
        names = [turn.about] if turn.about else [c.name for c in turn.answer.conditions[:LINKS]]
        for name in names:
            st.page_link(
                "views/conditions.py", label=name, icon=":material/menu_book:", query_params={"name": name}
            )


def feedback(talk: Conversation, at: int, base: Store) -> None:
    """Right, wrong or not helpful, and what it really was; written only after consent."""
    turn = talk.turns[at]
    if turn.answer is None or turn.kind == "error":
        return
    with st.popover("Rate this answer", icon=":material/rate_review:"):
        verdict = st.radio("This answer was", VERDICTS, key=f"verdict-{at}", index=None, horizontal=True)
        really = st.text_input("What it really was, if you know", key=f"really-{at}", max_chars=80)
        if st.button("Keep this rating", key=f"rate-{at}", disabled=verdict is None):
            base.rate(st.session_state.id, at, rating(talk, turn, str(verdict), really))
            st.success("Kept on this machine. Thank you.")


def rating(talk: Conversation, turn: Turn, verdict: str, really: str) -> dict[str, Any]:
    """One row of feedback; the condition is what it really was, or what was right."""
    assert turn.answer is not None
    first = turn.answer.conditions[0].name if turn.answer.intent != "none" else ""
    named = talk.assistant.names.get(normal(really), really.strip())
    found = talk.inquiry.findings.recognise(turn.asked or turn.said)
    record = record_of(talk.assistant, named) if named else None
    return {
        "verdict": verdict,
        "really": named or (first if verdict == "right" else ""),
        "findings": ", ".join(name for name, present in found.items() if present),
        "treatments": ", ".join(record["treatments"]) if record else "",
        "said": turn.asked or turn.said,
        "answered": first,
        "confidence": turn.answer.confidence,
        "model": talk.assistant.folder.name,
    }


def explain(at: int) -> None:
    """Work out which words of a turn mattered."""
    talk: Conversation = st.session_state.conversation
    with session.MODEL_LOCK:
        st.session_state.explained[at] = talk.explain(talk.turns[at])
    session.keep(talk)


def wait(kind: str, value: str) -> None:
    """Leave a message or a reply to the run of the page that follows, which shows its answer while it grows."""
    st.session_state.waiting = (kind, value)


def sent(talk: Conversation, typed: str | None) -> tuple[str, str] | None:
    """What the visitor sent just now, if anything.

    A reply of a page that is out of date, whose question is answered already, does nothing.
    """
    kind, value = st.session_state.pop("waiting", None) or ("say", typed)
    if not value or (kind == "reply" and talk.question is None):
        return None
    return kind, value


def past(talk: Conversation, at: int, number: str) -> DeltaGenerator:
    """One turn of before, as ``live`` left it; the message that holds the answer."""
    turn = talk.turns[at]
    with st.chat_message("user", avatar=YOU):
        st.html(look.said(turn.said, st.session_state.explained.get(at, ())))
    answered = st.chat_message("assistant", avatar=ME)
    first, rest = drawn(talk, at, number)
    answered.html(first)
    if rest:
        answered.html(rest)
    return answered


def drawn(talk: Conversation, at: int, number: str) -> tuple[str, str]:
    """The pieces of an answer of before, made once: a long conversation would delay the answer that is waited for."""
    held: dict[int, Any] = st.session_state.setdefault("drawn", {})
    turn = talk.turns[at]
    if at not in held or held[at][0] is not turn or held[at][1] != number:
        held[at] = (turn, number, head(talk.assistant, turn, number), tail(talk.assistant, turn, True))
    return held[at][2], held[at][3]


def after(talk: Conversation, at: int, base: Store | None) -> None:
    """What can be done with an answer, below it; rating it only where there is a store to keep that."""
    tools(talk, at)
    if base is not None:
        feedback(talk, at, base)


def live(talk: Conversation, kind: str, value: str, number: str, above: DeltaGenerator) -> DeltaGenerator:
    """Answer before the visitor's eyes: the alarm, the message and the ranking at once, then claim by claim.

    A visitor who presses something meanwhile ends this run of the page; the turn is then finished unseen and kept.
    """
    chat, at, turn, shown = talk.assistant, len(talk.turns), None, ""
    with st.chat_message("user", avatar=YOU):
        message = st.empty()
    answered = st.chat_message("assistant", avatar=ME)
    first, rest = answered.empty(), answered.empty()
    with session.MODEL_LOCK:
        turns = talk.stream_reply(value) if kind == "reply" else talk.stream(value)
        try:
            for turn in turns:
                now = head(chat, turn, number)
                if not shown:
                    alarm(above, talk, number)
                    message.html(look.said(turn.said))
                if now != shown:
                    first.html(now)
                    shown = now
                if turn.answer is not None:
                    rest.html(tail(chat, turn, False))
                time.sleep(BREATH)
            if turn and turn.answer is not None:
                rest.html(tail(chat, turn, True))
        finally:
            for _ in turns:
                pass
            session.keep(talk)
        if turn and turn.answer is not None and turn.answer.intent != "none" and turn.kind in MARKED:
            spans = talk.explain(turn)
            st.session_state.explained[at] = spans
            if spans:
                message.html(look.said(turn.said, spans))
            session.keep(talk)
    return answered


def ask_next(talk: Conversation) -> None:
    """The next best question, with its three answers."""
    question = talk.question
    if question is None:
        return
    with st.container(border=True, key="question"):
        st.caption(
            f"To tell the conditions apart · question {len(talk.replies) + 1} of at most {MOST_QUESTIONS}"
        )
        st.markdown(f"**{look.plain(question.text)}**")
        if question.ways:
            st.caption("People also say: " + look.plain(" · ".join(question.ways)))
        with st.container(horizontal=True):
            for value in ANSWERS:
                st.button(value.capitalize(), key=f"answer-{value}", on_click=wait, args=("reply", value))


def clear() -> None:
    """Forget the conversation, here and in the store."""
    st.session_state.conversation.clear()
    st.session_state.explained = {}
    session.forget()


def leave_topic() -> None:
    """Begin a new case."""
    st.session_state.conversation.new_topic()
    session.keep(st.session_state.conversation)


def switch_keeping() -> None:
    """Keep from now on, or forget what was kept."""
    state = st.session_state
    state.keep = state.keep_switch
    if state.keep:
        session.keep(state.conversation)
    else:
        session.forget()


def settings(shared: Assistant) -> None:
    """Precision and accepted risk, which the session keeps."""
    found = session.precisions(shared.folder)
    st.subheader("Model")
    st.caption(f"{look.plain(shared.folder.name)} · {len(shared.conditions)} conditions")
    st.session_state.setdefault("precision", shared.precision)
    st.session_state.setdefault("risk", shared.calibrator.risk)
    st.selectbox(
        "Model file", found, key="precision",
        format_func=lambda name: f"{name}, {(shared.folder / f'model.{name}.tflite').stat().st_size / 2**20:.1f} MiB",
    )  # fmt: skip
    st.select_slider(
        "Wrong answers to accept among those not marked as doubtful",
        [risk for risk, _ in shared.calibrator.thresholds],
        format_func="{:.0%}".format,
        key="risk",
        help="Holds for text like the model's own; on other text expect more. Applies to the next message.",
    )


def takeaways(talk: Conversation) -> None:
    """Downloads; each file is made when it is asked for."""

    def text() -> str:
        from app.ui.takeaway import as_text

        return as_text(talk.turns)

    def pdf() -> bytes:
        from app.ui.takeaway import as_pdf

        return as_pdf(talk.turns, talk.assistant.folder.name)

    with st.container(horizontal=True):
        st.download_button("Text", text, "symptomchat.txt", "text/plain", icon=":material/download:")
        st.download_button("PDF", pdf, "symptomchat.pdf", "application/pdf", icon=":material/download:")


def consent(base: Store) -> bool:
    """The consent to feedback, and what can be done with what was given."""
    agreed = st.checkbox(
        "Let me rate answers",
        key="consent",
        help="A rating is kept in a file on this machine with the words it is about, and sent nowhere.",
    )
    given = base.ratings(st.session_state.id)
    if given:
        csv = base.export(st.session_state.id)
        usable = csv.count("\n") - 1 if csv else 0
        st.download_button(
            "Ratings as CSV", csv, "feedback.csv", "text/csv", icon=":material/download:",
            help="train.py --data reads it: rows that name a condition and hold findings that I recognise.",
        )  # fmt: skip
        st.caption(f"{given} rated, {max(usable, 0)} of use for training.")
        if st.button("Delete my ratings"):
            base.withdraw(st.session_state.id)
            st.rerun()
    return agreed


def this_conversation(talk: Conversation) -> None:
    """What can be done with the whole of it."""
    with st.container(horizontal=True):
        st.button("New topic", on_click=leave_topic, disabled=not talk.statements)
        st.button("Clear", on_click=clear, disabled=not talk.turns, key="clear")
    if talk.turns:
        takeaways(talk)


def choose_region(talk: Conversation) -> str:
    """The emergency number of the region that the visitor chooses."""
    st.subheader("You")
    regions = list(REGIONS)
    region = st.selectbox(
        "Region, for the emergency number", regions, index=regions.index(st.session_state.region)
    )
    if region != st.session_state.region:
        st.session_state.region = region
        if talk.turns:
            session.keep(talk)
    return REGIONS[region]


def sidebar(shared: Assistant, talk: Conversation, base: Store | None) -> tuple[str, bool, DeltaGenerator]:
    """Everything beside the chat.

    Returns:
        The emergency number, whether answers may be rated, and the place of ``this_conversation``, which is drawn
        when the message that was just sent is part of it.
    """
    number = choose_region(talk)
    st.subheader("This conversation")
    place = st.container()
    agreed = False
    if base is None:
        st.caption(look.plain(f"Nothing can be kept: {st.session_state.store_problem}"))
    else:
        st.toggle(
            "Keep it on this machine",
            value=st.session_state.keep,
            key="keep_switch",
            on_change=switch_keeping,
        )
        st.caption(
            "It is in a file on the machine that runs this page and can be opened with this page's address, by nobody "
            "else: share the address only with whom you would let read it. Clear deletes it, and so do 30 days "
            "without a visit."
            if st.session_state.keep
            else "Nothing is kept: it is gone when this page is closed or loaded again."
        )
        st.subheader("Feedback")
        agreed = consent(base)
    settings(shared)
    return number, agreed, place


def welcome() -> None:
    """What can be asked, before anything was."""
    st.markdown("Describe what you feel and since when, or ask about a condition. For example:")
    for at, example in enumerate(EXAMPLES):
        st.button(example, key=f"example-{at}", on_click=wait, args=("say", example))


def main() -> None:
    """The page. Its places are laid out first, so that they can be filled in the order in which they matter."""
    st.title("SymptomChat", anchor=False)
    st.caption(
        "**Information, not diagnosis.** In an emergency call your emergency number. Nothing you type leaves the machine "
        "that runs this page."
    )
    typed = st.chat_input("What do you feel?")
    try:
        shared, inquiry = session.assistant(st.session_state.get("precision"))
        chat, _ = session.assistant(st.session_state.get("precision"), st.session_state.get("risk"))
    except SymptomChatError as error:
        st.error(look.plain(str(error)))
        st.stop()
    talk = session.conversation(chat, inquiry)
    base = session.store()
    above = st.container(key="alarm").empty()
    opening, history, below = st.empty(), st.container(), st.empty()
    turns = [history.container() for _ in talk.turns]
    message = sent(talk, typed)
    if message:
        # First of all, though it stands last: what is drawn before it is what the visitor waits for.
        number = REGIONS[st.session_state.region]
        alarm(above, talk, number)
        opening.empty()
        below.empty()
        with history.container():
            answered = live(talk, *message, number, above)
    with st.sidebar:
        number, agreed, place = sidebar(shared, talk, base)
    alarm(above, talk, number)
    if not talk.turns:
        with opening.container():
            welcome()
    rated = base if agreed else None
    for at, turn in enumerate(turns):
        with turn, past(talk, at, number):
            after(talk, at, rated)
    if message:
        with answered:
            after(talk, len(talk.turns) - 1, rated)
    if talk.question is not None:
        with below.container():
            ask_next(talk)
    with place:
        this_conversation(talk)


main()
