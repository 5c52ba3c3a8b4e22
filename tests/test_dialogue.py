"""A conversation: what counts as a follow-up, a correction or a new topic, and which question comes next."""

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from symptomchat import SymptomChatError, load
from symptomchat.runtime import reading
from symptomchat.runtime.assistant import LONGEST_QUESTION
from symptomchat.runtime.dialogue import Conversation, last
from symptomchat.runtime.explain import MATTERS, MOST_PASSES, spans_of, which_words, without
from symptomchat.runtime.findings import Findings, Profiles, frequencies
from symptomchat.runtime.inquiry import MOST_QUESTIONS, NO, SURE, UNSURE, YES, Inquiry, information_gain


@pytest.fixture(scope="module")
def shipped():
    return load()


@pytest.fixture(scope="module")
def inquiry(shipped):
    return Inquiry(shipped.conditions, shipped.phrasings)


@pytest.fixture
def talk(shipped, inquiry):
    return Conversation(shipped, inquiry)


# Findings in free text


def small():
    return Findings(
        ["cough", "dry cough", "fever", "no fever", "stiff neck", "palpitations", "loss of appetite"],
        {"stiff neck": ["my neck is stiff"], "palpitations": ["heart is racing"], "loss of appetite": ["no appetite"]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I have a dry cough", {"dry cough": True}),
        ("my heart is racing and the neck is stiff", {"palpitations": True, "stiff neck": True}),
        ("no cough, but palpitations", {"cough": False, "palpitations": True}),
        ("no fever", {"no fever": True, "fever": False}),
        ("no appetite", {"loss of appetite": True}),
        ("denies cough, fever, palpitations", {"cough": False, "fever": False, "palpitations": False}),
        ("I used to have palpitations", {}),
        ("Coughs and FEVERS", {"cough": True, "fever": True}),
        ("", {}),
        ("😀 <b>cough</b> مرحبا", {"cough": True}),
    ],
)
def test_findings_are_recognised_as_present_or_denied(text, expected):
    assert small().recognise(text) == expected


def test_a_mention_stands_where_it_was_said():
    text = "Since İstanbul: a Dry Cough, no fever"
    found = {text[m.begin : m.end]: m.present for m in small().mentions(text)}
    assert found["Dry Cough"] is True and found["fever"] is False


def test_ten_thousand_characters_are_read_in_a_moment(inquiry):
    start = time.perf_counter()
    inquiry.findings.recognise("I have a headache and my neck is stiff, no fever. " * 200)
    assert time.perf_counter() - start < 1.5


# How often a condition shows a finding


def test_frequencies_of_a_bundle_are_used_and_ranks_stand_in_for_them(bundle):
    chat = load(bundle)
    record = chat.conditions[0]
    assert frequencies(record) == [p / 100 for p in record["frequencies"]]
    ranked = frequencies({"symptoms": record["symptoms"]})
    assert len(ranked) == len(record["symptoms"]) and ranked == sorted(ranked, reverse=True)
    talk = Conversation(chat)
    talk.say("runny nose and sneezing")
    assert talk.turns[0].answer is not None
    profiles = talk.inquiry.profiles
    first = record["symptoms"][0]
    assert profiles.of(first)[0] == pytest.approx(min(0.95, record["frequencies"][0] / 100), abs=1e-9)


def test_a_narrow_finding_implies_the_wider_one():
    profiles = Profiles(
        [
            {"symptoms": ["dry cough", "family history of migraine"], "frequencies": [80, 30]},
            {"symptoms": ["cough", "migraine"], "frequencies": [20, 90]},
        ]
    )
    assert profiles.of("cough") == pytest.approx([0.8, 0.2])
    assert profiles.of("migraine")[0] < 0.6 and profiles.of("dry cough")[1] < 0.6


# The next best question


def test_information_gain_is_one_bit_where_the_answer_decides_and_none_where_it_cannot():
    prior = np.array([0.5, 0.5])
    gain = information_gain(prior, np.array([[1.0, 0.7], [0.0, 0.7]]))
    assert gain == pytest.approx([1.0, 0.0], abs=1e-6)


def fake():
    return Inquiry(
        [
            {"name": "A", "symptoms": ["cough", "rash"], "frequencies": [90, 5]},
            {"name": "B", "symptoms": ["cough", "rash", "no fever"], "frequencies": [90, 95, 90]},
        ],
        {"rash": ["spots"], "cough": ["coughing"]},
    )


def test_the_question_that_tells_apart_comes_first_and_answers_move_the_ranking():
    asks = fake()
    p = np.array([0.1, 0.45, 0.45])
    question = asks.next(p, {}, {})
    assert question is not None and question.finding == "rash" and question.ways == ("spots",)
    yes, no = asks.evidence({"rash": YES}), asks.evidence({"rash": NO})
    assert yes[2] > yes[1] and no[1] > no[2] and yes[0] == no[0] == 0
    assert asks.evidence({"rash": UNSURE}) is None


def test_it_stops_when_sure_when_nothing_helps_and_when_enough_was_asked():
    asks = fake()
    assert asks.next(np.array([0.0, 1 - SURE - 0.01, SURE + 0.01]), {}, {}) is None
    assert asks.next(np.array([0.1, 0.45, 0.45]), {"rash": True}, {}) is None
    assert asks.next(np.array([0.1, 0.45, 0.45]), {}, [str(n) for n in range(MOST_QUESTIONS)]) is None


def test_what_was_said_or_is_implied_is_not_asked(talk):
    talk.say("I have a headache, no fever")
    asked = []
    while talk.question is not None:
        asked.append(talk.question.finding)
        talk.reply(UNSURE)
    assert asked and len(asked) == len(set(asked)) <= MOST_QUESTIONS
    assert not {"headache", "fever", "high fever", "low-grade fever"} & set(asked)


def test_a_yes_is_told_to_the_model_in_words_and_a_no_lowers_what_needs_it(talk, shipped):
    talk.say("my heart beats fast and I feel dizzy")
    finding = talk.question.finding
    other = Conversation.from_json(json.loads(json.dumps(talk.to_json())), shipped, talk.inquiry)
    assert finding in talk.reply(YES).asked
    assert finding not in other.reply(NO).asked
    having = np.flatnonzero(talk.inquiry.profiles.of(finding) > 0.5)
    assert talk.judge().probabilities[1 + having].sum() > other.judge().probabilities[1 + having].sum()


def test_a_yes_to_a_question_raises_a_red_flag(talk):
    talk.say("my chest hurts and it goes into my left arm")
    talk.new_topic()
    talk.statements = [
        "I have a headache. " + "It has been like this since Tuesday and I took a tablet. " * 4
    ]
    talk.replies = {}
    talk.question = None
    talk.say("and I feel hot")
    from symptomchat.runtime.inquiry import Question

    talk.question = Question("stiff neck with fever", (), 0.5)
    turn = talk.reply(YES)
    assert "Possible meningitis" in turn.answer.red_flags and turn.answer.triage == "emergency"
    assert talk.red_flags and talk.question is None


def test_answers_alone_never_take_the_mark_of_doubt_away(talk):
    """The stated risk was measured on texts: where the words alone are flagged, so is the answer."""
    talk.say("I feel sick and my belly hurts")
    while talk.question is not None:
        turn = talk.reply(YES if len(talk.replies) % 2 else NO)
        if talk.assistant.judge(talk.case).flagged:
            assert turn.answer.flagged and turn.answer.reasons
    strong = dict.fromkeys(talk.assistant.conditions[0]["symptoms"][:6], YES)
    talk.new_topic()
    talk.statements, talk.replies = ["I feel unwell"], strong
    turn = last(talk._answer_case("", "reply", ""))
    assert turn.answer.flagged or not talk.assistant.judge(talk.case).flagged


# What a message is


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("yes", YES, ""), ("Yes!!", YES, ""), ("no", NO, ""), ("nope", NO, ""), ("not really", NO, ""),
        ("I don't know", UNSURE, ""), ("not sure", UNSURE, ""), ("no, but I'm dizzy", NO, "I'm dizzy"),
        ("yes and my neck is stiff", YES, "my neck is stiff"),
    ],
)  # fmt: skip
def test_typed_answers(text, value, rest):
    assert reading.read_reply(text) == reading.Reply(value, rest)


@pytest.mark.parametrize("text", ["no fever", "nothing else", "yesterday it began", "notes", "I have a rash"])
def test_what_is_no_answer(text):
    assert reading.read_reply(text) is None


@pytest.mark.parametrize(
    ("said", "correction", "expected"),
    [
        (["my left side hurts"], "no, not the left side", ["my side hurts"]),
        (["my left side hurts"], "actually it's the right side", ["my right side hurts"]),
        (["my left side hurts"], "no, it's the right side, not the left", ["my right side hurts"]),
        (["I have a fever and a cough"], "actually I don't have a fever", ["a cough"]),
        (["headache for 3 days"], "sorry, 5 days", ["headache for 5 days"]),
        (["headache for 3 days"], "actually 5 days, not 3", ["headache for 5 days"]),
        (["it burns when I pee", "I go all the time"], "actually it doesn't burn", ["I go all the time"]),
        (
            ["my chest hurts, I am dizzy"],
            "sorry I meant my ear hurts not my chest",
            ["I am dizzy", "my ear hurts"],
        ),
    ],
)
def test_corrections_change_what_was_said(said, correction, expected):
    assert reading.is_correction(correction) and reading.correct(said, correction) == expected


def test_a_correction_that_finds_nothing_is_added_not_lost():
    assert reading.correct(["my knee hurts"], "actually it began after a fall")[-1] == "it began after a fall"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what are the symptoms of migraine?", True),
        ("how is gout treated", True),
        ("do I have gout?", True),
        ("tell me about panic disorder", True),
        ("what is wrong with me", False),
        ("I was diagnosed with asthma and I can't breathe", False),
        ("my chest hurts, what is the treatment for heart attack?", False),
        ("and my neck is stiff", False),
    ],
)
def test_questions_about_a_condition_are_told_from_cases(inquiry, text, expected):
    assert reading.asks_about(text, inquiry.findings) is expected


# The whole


SCRIPT = [
    ("it burns when I pee", "case"),
    ("and I go all the time", "follow_up"),
    ("how is it treated?", "aside"),
    ("what are the symptoms of migraine?", "aside"),
    ("yes", "reply"),
    ("no fever", "follow_up"),
    ("actually it doesn't burn", "correction"),
    ("is it serious?", "aside"),
    ("new topic: I have a headache", "new_topic"),
    ("also I feel sick", "follow_up"),
    ("no", "reply"),
    ("not sure", "reply"),
    ("light hurts my eyes too", "follow_up"),
    ("what about gout?", "aside"),
    ("", "error"),
    ("x" * (LONGEST_QUESTION + 1), "error"),
    ("something else", "new_topic"),
    ("my big toe is red, swollen and so sore that I can't bear the sheet on it", "case"),
    ("and it started at night", "follow_up"),
    ("itchy eyes, sneezing and a runny nose whenever the grass is cut", "new_topic"),
    ("sorry, it is dust not grass", "correction"),
    ("<script>alert(1)</script> and my nose is blocked", "follow_up"),
    ("**bold** [link](http://example.org) also", "follow_up"),
    ("وأيضا أنا أعطس too", "follow_up"),
    ("😀😀 also", "follow_up"),
    ("start over", "new_topic"),
    ("crushing chest pain", "case"),
    ("and it goes into my left arm and I am sweating", "follow_up"),
    ("what is zorbitis?", "aside"),
    ("should I see a doctor?", "aside"),
    ("forget that, I have a rash on my hands", "new_topic"),
    ("it itches", "follow_up"),
]


def test_a_long_conversation_is_understood_turn_by_turn(talk):
    assert len(SCRIPT) >= 30
    kinds = [talk.say(text).kind for text, _ in SCRIPT]
    wrong = [(text[:40], want, got) for (text, want), got in zip(SCRIPT, kinds) if want != got]
    assert not wrong
    by_text = {turn.said: turn for turn in talk.turns}
    assert by_text["and I go all the time"].asked.startswith("it burns when I pee. ")
    assert "burns" not in by_text["actually it doesn't burn"].asked
    assert "Cystitis" in by_text["how is it treated?"].asked
    assert by_text["what are the symptoms of migraine?"].about == "Migraine"
    assert by_text["what is zorbitis?"].answer.flagged and by_text["what is zorbitis?"].about == ""
    heart = by_text["and it goes into my left arm and I am sweating"]
    assert "Possible heart attack" in heart.answer.red_flags
    assert "Possible heart attack" in by_text["should I see a doctor?"].answer.red_flags
    assert "chest" not in talk.case and not talk.red_flags
    assert len(by_text["x" * 400 + "…"].note) < 200


def test_a_turn_grows_from_the_ranking_on_and_stands_once_among_the_turns(shipped, inquiry):
    talk, same = Conversation(shipped, inquiry), Conversation(shipped, inquiry)
    for text in (
        "I have a fever, a bad headache and a stiff neck",
        "new topic: itchy eyes and sneezing when the grass is cut",
        "and my nose runs",
    ):
        grown = [(turn, len(talk.turns), talk.red_flags) for turn in talk.stream(text)]
        first = grown[0][0].answer
        assert len(grown) >= 2 and not first.symptoms and not first.treatments and first.conditions
        assert {number for _, number, _ in grown} == {len(talk.turns)}
        assert {(turn.answer.flagged, turn.answer.red_flags, flags) for turn, _, flags in grown} == {
            (first.flagged, first.red_flags, talk.red_flags)
        }
        whole = same.say(text)
        assert replace(talk.turns[-1].answer, milliseconds=0) == replace(whole.answer, milliseconds=0)
        assert talk.question == same.question
    stopped = talk.stream("and my eyes itch")
    next(stopped)
    stopped.close()
    assert talk.turns[-1].said == "and my eyes itch" and talk.question is None
    assert talk.say("and I am tired").kind == "follow_up"


def test_the_state_survives_as_json(talk, shipped):
    talk.say("my heart beats fast and I feel dizzy")
    talk.reply(YES)
    state = json.loads(json.dumps(talk.to_json()))
    again = Conversation.from_json(state, shipped, talk.inquiry)
    assert (
        json.loads(json.dumps(again.to_json())) == state
        and again.question == talk.question
        and again.turns == talk.turns
    )
    assert again.say("and I am sweating").asked == talk.say("and I am sweating").asked
    again.clear()
    assert again.case == "" and not again.turns


def test_a_case_longer_than_the_model_takes_keeps_its_beginning_and_end(talk):
    talk.say("my neck is stiff and I have a fever and a bad headache. " + "I feel unwell. " * 640)
    turn = talk.say("and now there is a purple rash. " + "It is bad. " * 60)
    assert turn.kind == "follow_up" and len(turn.asked) <= LONGEST_QUESTION
    assert turn.asked.startswith("my neck is stiff") and turn.asked.rstrip(".").endswith("bad")
    assert "Possible meningitis" in turn.answer.red_flags


def test_questions_stop_in_an_emergency(talk):
    talk.say("crushing chest pain going into my left arm and I am sweating")
    assert talk.red_flags and talk.question is None
    with pytest.raises(ValueError, match="no open question"):
        talk.reply(YES)


# Which words mattered


TEXTS = [
    "for two days now it burns when I pee and I keep running to the loo",
    "since this morning I have a throbbing headache on one side, and light hurts my eyes",
    "my big toe is red, swollen and so sore that I cannot bear the sheet on it",
    "itchy eyes, sneezing and a runny nose whenever the grass is cut near my house",
    "I have a wheeze and a tight chest at night and after running",
]


def test_leaving_out_the_marked_words_hurts_more_than_leaving_out_others(shipped):
    """The deletion check: words said to matter must matter more together than the same number of other words."""
    marked, others = [], []
    rng = random.Random(7)
    for text in TEXTS:
        spans = which_words(shipped.judge, text)
        first = int(shipped.judge(text).probabilities[1:].argmax()) + 1
        order = sorted(spans, key=lambda span: -span.effect)
        top, rest = order[:3], order[3:]
        assert top[0].effect >= MATTERS
        for chosen, into in ((top, marked), (rng.sample(rest, 3), others)):
            left = without(text, [(span.begin, span.end) for span in chosen])
            p = float(shipped.judge(left).probabilities[first])
            into.append(float(np.log(max(p, 1e-6))))
    assert np.mean(marked) < np.mean(others) - 1 and sum(a < b for a, b in zip(marked, others)) >= 4


def test_the_number_of_passes_is_limited_and_the_spans_cover_the_words(shipped):
    passes = []

    def judge(text):
        passes.append(text)
        return shipped.judge(text)

    text = "it hurts here and there since Monday, " * 30
    spans = which_words(judge, text)
    assert len(passes) <= MOST_PASSES + 1 and len(spans) == len(spans_of(text)) <= MOST_PASSES
    # "it" tells nothing.
    assert text[spans[0].begin :].startswith("hurts") and text[spans[-1].begin : spans[-1].end].endswith(
        "Monday"
    )


def test_marked_words_are_those_of_the_message_also_behind_words_that_were_not_read(talk):
    talk.say("I have a headache")
    turn = talk.say("new topic: my big toe is red and swollen")
    spans = talk.explain(turn)
    assert [turn.said[s.begin : s.end] for s in spans] == ["big", "toe", "red", "swollen"]
    turn = talk.say("actually my thumb, not my toe")
    assert all(turn.said[s.begin : s.end].strip() for s in talk.explain(turn))


def test_words_of_a_follow_up_are_weighed_within_the_whole_case(talk):
    talk.say("I have a headache")
    turn = talk.say("and light hurts my eyes, it throbs on one side and I feel sick")
    spans = talk.explain(turn)
    assert spans and all(0 <= s.begin < s.end <= len(turn.said) for s in spans)
    assert max(s.effect for s in spans) > 0


# The benchmark


def test_vignettes_without_a_complaint_are_refused_in_one_line(tmp_path):
    from benchmarks.questions import load_vignettes

    path = tmp_path / "cases.jsonl"
    path.write_text('{"correct_diagnosis": "Gout", "presentation": "toe"}\n')
    with pytest.raises(SymptomChatError, match=r"line 1: has no chief_complaints"):
        load_vignettes(path)


def test_an_interview_answers_from_the_whole_vignette(talk):
    from benchmarks.questions import Vignette, by_text, interview

    case = Vignette("headache", "I have a throbbing headache, light hurts my eyes, no fever.", "Migraine")
    answer = by_text(talk, case)
    assert answer("throbbing headache") == YES and answer("headache") == YES and answer("high fever") == NO
    assert answer("knee pain") == UNSURE
    ranked, answers = interview(talk, case, talk.inquiry.next, answer)
    assert len(ranked) == len(answers) + 1 <= MOST_QUESTIONS + 1
