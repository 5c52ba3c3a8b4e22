"""Answers from a bundle alone."""

import json
import shutil

import numpy as np
import pytest

from symptomchat import SymptomChatError, load
from symptomchat.files import MODELS
from symptomchat.learning.calibration import needed, risk_threshold, set_limit
from symptomchat.runtime.confidence import Calibrator, statistics
from symptomchat.runtime.triage import urgency
from tests.conftest import run_command

FIELDS = [
    "id", "intent", "conditions", "likely", "symptoms", "treatments", "triage", "red_flags", "confidence", "flagged", "reasons", "reply", "milliseconds", "left_out",
]  # fmt: skip


def test_an_answer_has_every_documented_field(assistant):
    answer = assistant.ask("stuffy nose, sneezing and a sore throat", "q1").to_json()
    assert list(answer) == FIELDS
    assert answer["id"] == "q1" and len(answer["conditions"]) == 10
    assert 0 <= answer["confidence"] <= 1 and isinstance(answer["flagged"], bool)
    probabilities = [c["probability"] for c in answer["conditions"]]
    assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1.001
    assert "not a diagnosis" in answer["reply"] and answer["milliseconds"] > 0


def test_the_same_question_gets_the_same_answer(assistant):
    first, second = (assistant.ask("my knee hurts on the stairs").to_json() for _ in range(2))
    first.pop("milliseconds"), second.pop("milliseconds")
    assert first == second


def test_a_red_flag_stands_first_even_when_misspelt(assistant):
    answer = assistant.ask("crushng chest pian into my left arm, swetaing")
    assert answer.red_flags and answer.triage == "emergency"
    assert answer.reply.startswith("This may be an emergency")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("what are the symptoms of zorbitis?", "zorbitis"),
        ("how is krilon palsy treated", "krilon palsy"),
        ("Tell me about the vexopathy.", "vexopathy"),
    ],
)
def test_an_invented_disease_is_flagged_by_name(assistant, text, name):
    answer = assistant.ask(text)
    assert answer.flagged and f"I do not know a condition called {name}." in answer.reasons
    assert answer.reply.find(name) >= 0


@pytest.mark.parametrize(
    "text",
    [
        "what are the symptoms of the comon cold?",
        "what is wrong with me? my throat is sore",
        "is this serious?",
    ],
)
def test_known_names_and_plain_questions_are_not_called_unknown(assistant, text):
    assert not [r for r in assistant.ask(text).reasons if "called" in r]


def test_the_prediction_set_begins_with_the_likeliest_and_follows_the_order(assistant):
    answer = assistant.ask("stuffy nose, sneezing and a sore throat")
    names = [c.name for c in answer.conditions]
    assert answer.likely and list(answer.likely) == names[: len(answer.likely)]


def test_the_accepted_risk_moves_the_flag(bundle):
    strict, lax = load(bundle, risk=0.02), load(bundle, risk=0.4)
    assert strict.threshold >= lax.threshold
    for risk in (0, 1, 0.001):
        with pytest.raises(SymptomChatError, match="risk"):
            load(bundle, risk=risk)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a " * 50_000, "100000 characters"),
        ("\x00\x01\x02\x03" * 9, "binary"),
    ],
)
def test_bad_questions_are_one_clear_line(assistant, text, message):
    with pytest.raises(SymptomChatError, match=message) as caught:
        assistant.ask(text)
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_bundles_are_refused(bundle, tmp_path):
    with pytest.raises(SymptomChatError, match="not a model bundle"):
        load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("work"))
    (copy / "knowledge.json").write_text("{}")
    with pytest.raises(SymptomChatError, match="damaged"):
        load(copy)
    (copy / "manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(SymptomChatError, match="format"):
        load(copy)


def test_the_runtime_needs_no_tensorflow(bundle):
    code = f"import sys; from symptomchat import load; load({str(bundle)!r}).ask('cough'); print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    assert run_command("-c", code).stdout.strip().endswith("False False")


def test_both_precisions_agree(bundle, assistant):
    other = load(bundle, "fp32")
    for text in ("sore throat and cough", "what are the symptoms of asthma?"):
        a, b = assistant.ask(text), other.ask(text)
        assert abs(a.conditions[0].probability - b.conditions[0].probability) < 0.1


def test_statistics_have_the_documented_signs():
    sure, unsure = np.array([0.01, 0.95, 0.04]), np.array([0.3, 0.36, 0.34])
    a, b = statistics(sure, 0.1, 0.0, 9), statistics(unsure, 0.1, 0.0, 9)
    assert a[0] > b[0] and a[1] > b[1] and a[2] < b[2] and a[3] < b[3]


def test_the_threshold_bounds_the_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=4000)
    right = rng.uniform(size=4000) < confidence
    threshold = risk_threshold(confidence.tolist(), right.tolist(), 0.1)
    fresh = rng.uniform(size=4000)
    wrong = rng.uniform(size=4000) >= fresh
    assert wrong[fresh >= threshold].mean() < 0.12 and 0.6 < threshold < 0.95
    assert risk_threshold([0.9] * 5, [False] * 5, 0.1) > 1


def test_the_stated_risk_holds_in_nineteen_of_twenty_calibrations():
    rng = np.random.default_rng(1)
    broken = 0
    for _ in range(200):
        confidence = rng.uniform(size=600)
        right = rng.uniform(size=600) < confidence
        threshold = risk_threshold(confidence.tolist(), right.tolist(), 0.2)
        # Above a threshold t the true share of wrong answers is (1 - t) / 2.
        broken += threshold < 1 and (1 - threshold) / 2 > 0.2
    assert broken <= 18
    assert needed(0.1) == 42


def test_bad_luck_among_the_surest_does_not_flag_everything():
    confidence = np.linspace(1, 0, 1000)
    right = np.arange(1000) < 400
    right[:12] = False
    assert risk_threshold(confidence.tolist(), right.tolist(), 0.1) < 0.8


def test_the_set_limit_lets_nine_of_ten_truths_in():
    rng = np.random.default_rng(2)
    limit = set_limit(rng.beta(2, 2, size=2000).tolist())
    assert 0.87 < (rng.beta(2, 2, size=20000) >= limit).mean() < 0.93


def test_temperature_keeps_the_order():
    calibrator = Calibrator(2.0, (0.0,) * 7, (1.0,) * 7, (0.0,) * 7, 0.0, 0.5, 0.1, 1.0, 0.0)
    soft = calibrator.soften(np.array([0.1, 0.7, 0.2]))
    assert soft.argsort().tolist() == [0, 2, 1] and abs(soft.sum() - 1) < 1e-9 and soft[1] < 0.7


def test_urgency_errs_to_the_safe_side():
    assert urgency([("self_care", 0.6), ("emergency", 0.35)], [], True) == "emergency"
    assert urgency([("self_care", 0.6), ("see_doctor", 0.4)], [], True) == "see_doctor"
    assert urgency([("self_care", 0.9)], [], True) == "self_care"
    assert urgency([], [], False) == "unknown"


def test_a_streamed_answer_grows_into_the_whole_one():
    from symptomchat import load

    assistant = load()
    text = "itchy eyes, sneezing and a runny nose whenever the grass is cut"
    grown = list(assistant.stream(text))
    first, whole = grown[0], assistant.ask(text)
    assert len(grown) > 2 and not first.symptoms and not first.treatments
    for answer in grown:
        assert (answer.conditions, answer.confidence, answer.flagged, answer.triage) == (
            whole.conditions, whole.confidence, whole.flagged, whole.triage,
        )  # fmt: skip
    counts = [len(answer.symptoms) + len(answer.treatments) for answer in grown]
    assert counts == sorted(counts) and whole.symptoms[: len(grown[1].symptoms)] == grown[1].symptoms
    assert (grown[-1].symptoms, grown[-1].treatments, grown[-1].reply) == (
        whole.symptoms, whole.treatments, whole.reply,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shipped():
    return load(MODELS / "symptomchat")


@pytest.mark.parametrize(
    "form, intent",
    [
        ("What are the symptoms of {}?", "symptoms"),
        ("what is {}", "symptoms"),
        ("tell me about {}", "symptoms"),
        ("how do I know if I have {}?", "symptoms"),
        ("{}", "symptoms"),
        ("how is {} treated?", "treatment"),
        ("How do I treat {}?", "treatment"),
        ("what helps against {}?", "treatment"),
    ],
)
def test_a_question_by_name_is_answered_about_that_condition(shipped, form, intent):
    for condition in shipped.conditions[3::97]:
        answer = shipped.ask(form.format(condition["name"]))
        assert answer.conditions[0].name == condition["name"] and answer.intent == intent
        assert answer.conditions[0].probability > 0.9
        told = answer.treatments if intent == "treatment" else answer.symptoms
        assert told and answer.reply.startswith(("Symptoms of", "Usual treatment", "I am not sure", "This "))
        if intent == "treatment":
            assert not answer.symptoms


def test_a_name_within_a_case_and_a_complaint_decide_nothing(shipped):
    for text in (
        "I was told I have gout and my toe hurts",
        "do I have gout?",
        "is it gout? my toe is red",
        "back pain",
        "how is back pain treated?",
        "what is zorbitis?",
    ):
        assert shipped.named(text) is None
