"""The chat: messages on one side, answers on the other, one question at a time to narrow things down.

An answer shows, in this order: an emergency, what was done with the message, the mark of doubt with its reasons, the
ranked conditions as bars, what to do, and the generated findings marked by source. All but the last is there at
once; the findings are added one by one below it, so that nothing that can be read already moves. Below a red flag all
of that is folded away.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.ui import look, session
from app.ui.store import VERDICTS, Store
from app.ui.units import METRIC, UNITS, in_units
from symptomchat import Answer, Assistant, SymptomChatError
from symptomchat.runtime.assistant import NOT_COUNTED, SOUNDS
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
    "How is gout treated?",
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


def sounds(answer: Answer) -> bool:
    """Whether no rule names an emergency and the classifier hears one: the reply then says so."""
    return not answer.red_flags and SOUNDS in answer.reply.split("\n")


def rings(talk: Conversation) -> bool:
    """Whether the last answer about the case sounds like an emergency."""
    told = [turn for turn in talk.turns if turn.answer is not None and turn.kind != "aside"]
    last = told[-1].answer if told and talk.statements else None
    return last is not None and sounds(last)


def alarm(place: DeltaGenerator, talk: Conversation, number: str) -> None:
    """The emergency of the case, above everything else, as an alert that stays in view."""
    if talk.red_flags:
        said = f"**This may be an emergency. Call {number} now.** {look.plain('; '.join(talk.red_flags))}."
    elif rings(talk):
        said = f"**This sounds like an emergency.** If you are not sure that it is none, call {number} or get help now."
    else:
        place.empty()
        return
    place.error(said, icon=":material/emergency_home:")


def claims(chat: Assistant, answer: Answer, own: Mapping[str, bool], units: str) -> str:
    """The generated findings as chips; ``own`` are the findings that the person named (True) or denied (False)."""
    name = answer.conditions[0].name
    record = record_of(chat, name) or {"symptoms": [], "treatments": []}
    parts = []
    for title, given, known in (
        (f"Typical of {name}", answer.symptoms, record["symptoms"]),
        (f"Treatment of {name}", answer.treatments, record["treatments"]),
    ):
        supports = [supported(claim.text, known, chat.phrasings) for claim in given]
        mine = [own.get(held or claim.text) for claim, held in zip(given, supports, strict=True)]
        parts.append(look.chips(title, given, supports, mine, units))
    return "".join(parts)


def emergency(answer: Answer, number: str, units: str) -> str:
    """The box of an emergency: what a red flag advises, or whom to call."""
    if answer.red_flags:
        advice = [line for line in answer.reply.split("\n") if line.split(":")[0] in answer.red_flags]
        return look.box("red", f"Call {number} now", [in_units(line, units) for line in advice])
    if sounds(answer):
        return look.box("red", f"This may be an emergency: if you are not sure, call {number}")
    heading, kind = look.TRIAGE["emergency"]
    return look.box(kind, heading, [f"Call {number} or get medical help now."])


def what_to_do(record: dict[str, Any] | None, triage: str, units: str) -> str:
    """Urgency and the next step, in a box; ``record`` is the condition that it is about, None where nothing fits."""
    heading, kind = look.TRIAGE[triage]
    lines = []
    if record is None:
        lines.append("If you feel ill, describe what you feel and since when, or ask a doctor.")
    else:
        if triage == "self_care" and record["self_care"]:
            lines.append(f"What helps: {', '.join(record['self_care'])}.")
        when = look.becomes_emergency(record["emergency_when"] or "")
        lines.append(f"{record['name']}: {when}" if when else "")
    return look.box(kind, heading, [in_units(line, units) for line in lines if line])


def known_condition(record: dict[str, Any], units: str) -> str:
    """What the sources say of a condition that was asked about by a known name."""
    lines = [f"Typical: {', '.join(record['symptoms'][:8])}."]
    if record["treatments"]:
        lines.append(f"Treatment: {', '.join(record['treatments'])}.")
    return look.box("grey", f"{record['name']}, from my sources", [in_units(line, units) for line in lines])


def beside_the_point(turn: Turn) -> bool:
    """Whether a condition was asked about by a known name and the model took it for another, or for none."""
    answer = turn.answer
    return bool(
        turn.about
        and answer
        and not answer.red_flags
        and (answer.intent == "none" or answer.conditions[0].name != turn.about)
    )


def doubts(answer: Answer) -> list[str]:
    """Why an answer is doubtful. That a claim is in no source is said on its chip: it is known only once the claim
    is written, and what is above the chips must not grow then."""
    kept = [reason for reason in answer.reasons if not reason.startswith(NO_SOURCE)]
    return kept or [SEVERAL]


def refused(note: str) -> str:
    """Why a message could not be used, in the words of a person."""
    reason = note.removeprefix("question: ")
    return look.box(
        "doubt", "This could not be used", [f"Your message {reason}." if reason != note else note]
    )


def head(chat: Assistant, turn: Turn, number: str, units: str = METRIC) -> str:
    """All of an answer that is known before a claim is generated, the most urgent first."""
    answer = turn.answer
    if turn.kind == "error":
        return refused(turn.note)
    parts = [look.note(turn.note)] if turn.note else []
    if answer is None:
        return "".join(parts)
    if answer.red_flags or sounds(answer) or (answer.triage == "emergency" and not turn.about):
        parts.insert(0, emergency(answer, number, units))
    if answer.left_out:
        parts.append(look.note(f"{NOT_COUNTED}: {' '.join(answer.left_out)}"))
    if not answer.red_flags:
        parts.append(ranking(chat, turn, units))
    return "".join(parts)


def ranking(chat: Assistant, turn: Turn, units: str) -> str:
    """What the sources say of a condition asked about; doubt, ranked conditions and what to do.

    Where the model took a known name for something else, the sources alone speak.
    """
    answer = turn.answer
    assert answer is not None
    about = record_of(chat, turn.about) if turn.about else None
    parts = [known_condition(about, units)] if about else []
    if about and beside_the_point(turn):
        parts.append(what_to_do(about, about["urgency"], units))
        return "".join(parts)
    if answer.flagged:
        parts.append(look.box("doubt", "⚠ May be made up", doubts(answer)))
    if answer.intent != "none":
        title = "What may fit" if answer.intent == "diagnose" else "What you may be asking about"
        parts.append(look.bars(answer.conditions[:BARS], answer.likely, title))
        more = [name for name in answer.likely if name not in {c.name for c in answer.conditions[:BARS]}]
        if more:
            parts.append(look.wrap(f'<div class="small">Also possible: {look.escape(", ".join(more))}</div>'))
    if answer.triage != "emergency" or about:
        first = record_of(chat, answer.conditions[0].name) if answer.intent != "none" else None
        parts.append(what_to_do(first, answer.triage, units))
    return "".join(parts)


def tail(
    chat: Assistant, turn: Turn, finished: bool, own: Mapping[str, bool] | None = None, units: str = METRIC
) -> str:
    """What an answer says of the condition that comes first, claim by claim, and how sure it is.

    Below a red flag the ranking comes here too, and all of it is folded: nothing is to be read before the call.
    """
    answer = turn.answer
    if answer is None:
        return ""
    if beside_the_point(turn):
        took = f"{answer.milliseconds:.0f} ms on this machine" if finished else "writing …"
        return look.wrap(
            f'<div class="small">The model itself took this for something else; its answer is left out. · {took}</div>'
        )
    sure = f"My confidence: {look.share(answer.confidence)}"
    sure += f" · {answer.milliseconds:.0f} ms on this machine" if finished else " · writing …"
    parts = [claims(chat, answer, own or {}, units)] if answer.intent != "none" else []
    parts.append(look.wrap(f'<div class="small">{sure}</div>'))
    if answer.red_flags:
        return look.folded("After the call: what this may be", "".join([ranking(chat, turn, units), *parts]))
    return "".join(parts)


def tools(talk: Conversation, at: int) -> None:
    """What can be done with one answer: see which words mattered, read on."""
    turn = talk.turns[at]
    if turn.answer is None or (turn.answer.intent == "none" and not turn.about):
        return
    spans = st.session_state.explained.get(at)
    if spans and not beside_the_point(turn) and any(abs(span.effect) >= MATTERS for span in spans):
        first = turn.answer.conditions[0].name
        st.html(look.legend(first, spans))
    with st.container(horizontal=True, vertical_alignment="center", key=f"tools-{at}"):
        if spans is None and turn.kind in MARKED and not beside_the_point(turn):
            st.button(
                "Which words mattered?", key=f"explain-{at}", on_click=explain, args=(at,), type="tertiary"
            )
        st.html(look.wrap('<span class="small">Read about</span>'), width="content")
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
    first = turn.about or (turn.answer.conditions[0].name if turn.answer.intent != "none" else "")
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


def past(talk: Conversation, at: int, number: str, units: str) -> DeltaGenerator:
    """One turn of before, as ``live`` left it; the message that holds the answer."""
    turn = talk.turns[at]
    with st.chat_message("user", avatar=YOU):
        st.html(look.said(turn.said, st.session_state.explained.get(at, ())))
    answered = st.chat_message("assistant", avatar=ME)
    first, rest = drawn(talk, at, number, units)
    answered.html(first)
    if rest:
        answered.html(rest)
    return answered


def drawn(talk: Conversation, at: int, number: str, units: str) -> tuple[str, str]:
    """The pieces of an answer of before, made once: a long conversation would delay the answer that is waited for."""
    held: dict[int, Any] = st.session_state.setdefault("drawn", {})
    turn, chat, how = talk.turns[at], talk.assistant, (number, units)
    if at not in held or held[at][0] is not turn or held[at][1] != how:
        pieces = head(chat, turn, number, units), tail(chat, turn, True, own_words(talk, turn), units)
        held[at] = (turn, how, *pieces)
    return held[at][2], held[at][3]


def own_words(talk: Conversation, turn: Turn) -> dict[str, bool]:
    """Findings that a person named or denied, in the text that the model was given."""
    return talk.inquiry.findings.recognise(turn.asked) if turn.asked else {}


def after(talk: Conversation, at: int, base: Store | None) -> None:
    """What can be done with an answer, below it; rating it only where there is a store to keep that."""
    tools(talk, at)
    if base is not None:
        feedback(talk, at, base)


def live(
    talk: Conversation, kind: str, value: str, number: str, above: DeltaGenerator, units: str = METRIC
) -> DeltaGenerator:
    """Answer before the visitor's eyes: the alarm, the message and the ranking at once, then claim by claim.

    A visitor who presses something meanwhile ends this run of the page; the turn is then finished unseen and kept.
    """
    chat, at, turn, shown = talk.assistant, len(talk.turns), None, ""
    own: dict[str, bool] | None = None
    with st.chat_message("user", avatar=YOU):
        message = st.empty()
    answered = st.chat_message("assistant", avatar=ME)
    first, rest = answered.empty(), answered.empty()
    with session.MODEL_LOCK:
        turns = talk.stream_reply(value) if kind == "reply" else talk.stream(value)
        try:
            for turn in turns:
                now = head(chat, turn, number, units)
                if own is None:
                    own = own_words(talk, turn)
                    alarm(above, talk, number)
                    message.html(look.said(turn.said))
                if now != shown:
                    first.html(now)
                    shown = now
                if turn.answer is not None:
                    rest.html(tail(chat, turn, False, own, units))
                time.sleep(BREATH)
            if turn and turn.answer is not None:
                rest.html(tail(chat, turn, True, own, units))
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
            f"To tell these conditions apart · question {len(talk.replies) + 1} of at most {MOST_QUESTIONS}"
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
    """Model and accepted risk, which the session keeps."""
    st.subheader("Model")
    found = session.installed(shared.folder)
    own = str(session.model_path(shared))
    state = st.session_state
    if len(found) > 1:
        if state.get("model") not in found:
            state.model = own
        st.selectbox(
            "Model file, which answers the next message", found, key="model", format_func=named_model
        )
    else:
        st.caption(look.plain(named_model(own)))
    if state.get("model_problem"):
        st.caption(look.plain(f"Not opened: {state.model_problem}"))
    risks = dict(shared.calibrator.thresholds)
    if state.get("risk") not in risks:
        state.risk = shared.calibrator.risk
    st.select_slider(
        "Accepted risk", list(risks), format_func=look.share, key="risk",
        help="Measured on text like the model's own; on other text expect more. Applies to the next message.",
    )  # fmt: skip
    st.caption(
        f"Of the answers without the mark “may be made up”, up to {look.share(state.risk)} are wrong."
        if risks[state.risk] <= 1
        else f"So little risk cannot be promised: with {look.share(state.risk)} every answer is marked."
    )


def named_model(path: str) -> str:
    """A model file as a person chooses it: bundle, precision and size."""
    file = Path(path)
    size = file.stat().st_size / 2**20
    return f"{file.parent.name}, {file.suffixes[0].lstrip('.')}, {size:.1f} MiB"


def takeaways(talk: Conversation) -> None:
    """Downloads; each file is made when it is asked for."""

    def text() -> str:
        from app.ui.takeaway import as_text

        return as_text(talk.turns)

    def pdf() -> bytes:
        from app.ui.takeaway import as_pdf

        return as_pdf(talk.turns, talk.assistant.folder.name)

    st.caption("To take to your doctor:")
    with st.container(horizontal=True):
        st.download_button("As text", text, "symptomchat.txt", "text/plain", icon=":material/download:")
        st.download_button("As PDF", pdf, "symptomchat.pdf", "application/pdf", icon=":material/download:")


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
    """The emergency number of the region that the visitor chooses; below it the units."""
    st.subheader("You")
    regions = list(REGIONS)
    region = st.selectbox(
        "Region, for the emergency number", regions, index=regions.index(st.session_state.region)
    )
    if region != st.session_state.region:
        st.session_state.region = region
        if talk.turns:
            session.keep(talk)
    st.session_state.setdefault("units", METRIC)
    st.segmented_control("Units", UNITS, key="units", required=True)
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
            "Whoever has this page's address can read it; nobody else can. It is deleted by Clear, or after 30 days "
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
    with st.container(gap="xsmall"):
        for at, example in enumerate(EXAMPLES):
            st.button(example, key=f"example-{at}", on_click=wait, args=("say", example))


def introduce(place: DeltaGenerator, number: str) -> None:
    """What this is, and whom to call instead."""
    place.caption(
        f"**Information, not diagnosis.** In an emergency call {number}. Nothing you type leaves the machine that runs "
        "this page."
    )


def main() -> None:
    """The page. Its places are laid out first, so that they can be filled in the order in which they matter."""
    st.title("SymptomChat", anchor=False)
    first = next(iter(REGIONS))
    intro = st.empty()
    introduce(intro, REGIONS[st.session_state.get("region", first)])
    typed = st.chat_input("What do you feel?")
    try:
        shared, inquiry = session.assistant(st.session_state.get("model"))
        chat, _ = session.assistant(st.session_state.get("model"), st.session_state.get("risk"))
    except SymptomChatError as error:
        st.error(look.plain(str(error)))
        st.stop()
    talk = session.conversation(chat, inquiry)
    base = session.store()
    above = st.container(key="alarm").empty()
    opening, history, below = st.empty(), st.container(), st.empty()
    turns = [history.container() for _ in talk.turns]
    message = sent(talk, typed)
    units = st.session_state.get("units", METRIC)
    if message:
        # First of all, though it stands last: what is drawn before it is what the visitor waits for.
        number = REGIONS[st.session_state.region]
        alarm(above, talk, number)
        opening.empty()
        below.empty()
        with history.container():
            answered = live(talk, *message, number, above, units)
    with st.sidebar:
        number, agreed, place = sidebar(shared, talk, base)
    introduce(intro, number)
    alarm(above, talk, number)
    if not talk.turns:
        with opening.container():
            welcome()
    rated = base if agreed else None
    for at, turn in enumerate(turns):
        with turn, past(talk, at, number, units):
            after(talk, at, rated)
    if message:
        with answered:
            after(talk, len(talk.turns) - 1, rated)
    if talk.question is not None:
        with below.container():
            ask_next(talk)
    with place:
        this_conversation(talk)
    # Made for the first answer otherwise, which would wait for it; whoever reads the page does not.
    getattr(shared, "vocabulary", None)


main()
