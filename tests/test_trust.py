"""Whether the figures on trust mean what they say: pairs, red flags in fresh words, uncertainty, curves, claims."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from symptomchat import load
from symptomchat.corpus.knowledge import load_knowledge
from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.figures import draw, reliability, risk_coverage
from symptomchat.evaluation.pairs import (
    KINDS,
    MARGIN,
    Pair,
    condition_rows,
    fall,
    fresh_rows,
    load_fresh,
    load_pairs,
    red_flag_rows,
)
from symptomchat.evaluation.suites import Case
from symptomchat.evaluation.trust import (
    Judged,
    claims_row,
    deletion_row,
    held_out_row,
    invented,
    judge,
    load_unknown,
    mean_interval,
    spread,
    unmarked,
)
from symptomchat.evaluation.uncertainty import (
    SAMPLES,
    auroc,
    auroc_interval,
    generated_scores,
    sampled_meanings,
    sampling_engine,
    score_rows,
    semantic_entropy,
)
from symptomchat.files import BASE
from symptomchat.runtime.assistant import Claim, Judgement, whole_words
from symptomchat.runtime.confidence import FEATURES
from symptomchat.runtime.triage import RedFlags


@pytest.fixture(scope="module")
def shipped():
    return load()


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


@pytest.fixture(scope="module")
def flags(knowledge):
    return RedFlags(
        [rule.model_dump() for rule in knowledge.red_flags],
        whole_words(Tokenizer.from_file(str(BASE / "tokenizer.json"))),
    )


def test_the_pairs_are_many_varied_and_name_what_is_known(knowledge):
    pairs = load_pairs()
    flagged = [pair for pair in pairs if pair.part == "red flag"]
    assert len(pairs) >= 200 and len(flagged) >= 60
    assert {pair.kind for pair in pairs} == set(KINDS)
    assert len({pair.system for pair in pairs if pair.part == "condition"}) >= 15
    assert len({(pair.a, pair.b) for pair in pairs}) == len(pairs)
    rules = {rule.id for rule in knowledge.red_flags}
    for pair in pairs:
        assert set(pair.lose) <= set(knowledge.by_name) and (not pair.rule or pair.rule in rules), pair


def test_no_text_of_the_measurement_is_in_the_training_data(knowledge):
    known = {p.text.lower() for p in knowledge.presentations}
    known |= {text.lower() for rule in knowledge.red_flags for text in (*rule.positives, *rule.negatives)}
    texts = [text for pair in load_pairs() for text in (pair.a, pair.b)] + [t.text for t in load_fresh()]
    assert not known & {text.lower() for text in texts}


def test_a_broken_pair_is_named_by_file_and_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = {
        "part": "condition",
        "kind": "denied",
        "voice": "first",
        "a": "I have a cough.",
        "b": "No cough now.",
    }
    path.write_text(json.dumps(row | {"lose": ["Common cold"]}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(SymptomChatError, match=r"pairs\.jsonl: line 2: .*lose"):
        load_pairs(path)


def test_a_fall_is_measured_in_log_odds_of_the_named_conditions_together():
    before, after = np.array([0.1, 0.4, 0.4, 0.1]), np.array([0.1, 0.3, 0.3, 0.3])
    assert fall(before, after, [1, 2]) == pytest.approx(math.log(4) - math.log(1.5))
    assert fall(before, before, [1]) == 0
    assert math.exp(-MARGIN) == pytest.approx(0.75)


def test_a_denied_finding_lowers_its_condition(shipped):
    pairs = [pair for pair in load_pairs() if pair.part == "condition" and pair.kind == "denied"]
    rows = {row["kind"]: row for row in condition_rows(shipped, spread(pairs, 30))}
    assert rows["denied"]["pairs"] == 30 and rows["past"]["pairs"] == 0
    low, high = rows["denied"]["interval"]
    assert low <= rows["denied"]["right"] <= high and rows["denied"]["right"] >= 0.6


def test_pairs_of_conditions_that_a_bundle_does_not_know_are_left_out(shipped):
    pair = Pair(
        part="condition", kind="denied", voice="first", lose=("Space flu",), a="It glows.", b="No glow."
    )
    assert all(row["pairs"] == 0 for row in condition_rows(shipped, [pair]))


def test_red_flags_tell_the_past_and_stories_from_what_is_now(flags):
    rows = {(row["half"], row["kind"]): row for row in red_flag_rows(flags.check, load_pairs())}
    for half in ("tuned", "untouched"):
        for kind in KINDS:
            assert rows[half, kind]["silent on b"] >= 0.85, rows[half, kind]
            assert rows[half, kind]["right"] <= min(rows[half, kind]["fires on a"], 1)


@pytest.mark.parametrize(
    "text",
    [
        "I had a heart attack two years ago and now I have crushing chest pain in my left arm",
        "since last year I have had seizures and this one is not stopping, he is shaking now",
        "I saw a sad film and now I want to kill myself",
        "watching a film on tv he suddenly became unconscious",
        "when I was in the shower I got crushing chest pain",
        "my husband died last spring, and I want to end my life",
        "he is unconscious and not breathing",
        "as I was choking I turned blue, I am choking again now",
    ],
)
def test_what_is_now_is_never_silenced_by_a_past_or_a_story_beside_it(flags, text):
    assert flags.check(text)


@pytest.mark.parametrize(
    "text",
    [
        "he is chokin and cant breathe",
        "i cant breathe, my lips are blue",
        "i cannot breathe, my lips are blue",
        "hit my hed, vomiting and confused",
    ],
)
def test_red_flags_are_found_as_people_type_them(flags, text):
    assert flags.check(text)


def test_fresh_emergencies_cover_every_rule_that_stood_when_they_were_written():
    texts = load_fresh()
    assert sum(t.emergency for t in texts) >= 120 and sum(not t.emergency for t in texts) >= 80
    assert len({t.rule for t in texts}) >= 40
    assert {t.half for t in texts} == {"tuned", "untouched"}


def test_fresh_harmless_texts_raise_hardly_an_alarm(flags):
    rows = {row["half"]: row for row in fresh_rows(flags.check, load_fresh())}
    for row in rows.values():
        assert row["false alarms"] <= 0.05
        assert row["recall interval"][0] <= row["recall"] <= row["recall interval"][1]
        assert row["recall"] >= row["the right rule"] > 0.3


def test_semantic_entropy_counts_meanings_and_not_wordings():
    cold, flu = (1, frozenset({"cough", "runny nose"})), (2, frozenset({"fever"}))
    assert semantic_entropy([cold] * 10) == pytest.approx(0)
    assert semantic_entropy([cold] * 5 + [flu] * 5) == pytest.approx(math.log(2))
    near = (1, frozenset({"cough", "runny nose", "sneezing"}))
    assert semantic_entropy([cold, near]) == pytest.approx(0)
    assert semantic_entropy([cold, (1, frozenset({"rash"}))]) == pytest.approx(math.log(2))


def test_auroc_agrees_with_a_known_implementation_and_its_interval_holds_it():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    right = rng.random(200) < 0.4
    score = np.round(right + rng.normal(size=200), 1)
    assert auroc(right, score) == pytest.approx(roc_auc_score(right, score))
    low, high = auroc_interval(right, score)
    assert low < auroc(right, score) < high and high - low < 0.25
    assert score_rows(np.ones(5, bool), {"x": np.arange(5.0)}) == []
    with pytest.raises(ValueError, match="right and wrong"):
        auroc_interval(np.ones(5, bool), np.arange(5.0))


def test_sampling_differs_between_draws_and_leaves_greedy_answers_as_they_are(shipped):
    text = "my big toe is red, hot and so sore that the sheet hurts"
    before = shipped.ask(text)
    question = shipped.engine.prefill(shipped.grammar.question(text))
    engine, rng = sampling_engine(shipped), np.random.default_rng(1)
    meanings = sampled_meanings(shipped, engine, question, rng)
    assert len(meanings) == SAMPLES and len({number for number, _ in meanings}) >= 1
    texts = {
        tuple(
            engine.sample(
                question,
                shipped.grammar.none + 1,
                shipped.grammar.end,
                shipped.vocabulary.guide(shipped.conditions[0], bonus=0.0),
                rng,
            )
        )
        for _ in range(3)
    }
    assert len(texts) > 1
    assert replace(shipped.ask(text), milliseconds=0) == replace(before, milliseconds=0)


def test_generated_scores_are_log_probabilities_and_entropies(shipped):
    found = generated_scores(shipped, [Case("runny nose and sneezing since yesterday", "Common cold")])
    assert len(found) == 3 and all(score.shape == (1,) and score[0] <= 0 for score in found.values())
    assert min(score[0] for score in found.values()) >= -20


def test_reliability_points_lie_on_the_diagonal_for_a_calibrated_score():
    rng = np.random.default_rng(5)
    confidence = rng.random(20000)
    points = reliability(confidence, rng.random(20000) < confidence)
    assert len(points) == 10 and sum(p["number"] for p in points) == 20000
    assert all(
        abs(p["confidence"] - p["right"]) < 0.05 and p["low"] <= p["right"] <= p["high"] for p in points
    )


def test_the_risk_coverage_area_is_best_for_a_perfect_order_and_the_share_wrong_for_none():
    right = np.array([True] * 60 + [False] * 40)
    perfect = risk_coverage(np.linspace(1, 0, 100), right)
    reverse = risk_coverage(np.linspace(0, 1, 100), right)
    assert perfect["area"] == perfect["best area"] < perfect["random area"] == 0.4 < reverse["area"]
    assert perfect["points"][-1]["coverage"] == 1 and perfect["points"][-1]["risk"] == pytest.approx(0.4)


def test_figures_are_drawn_the_same_each_time(tmp_path):
    rng = np.random.default_rng(6)
    confidence = rng.random(300)
    right = rng.random(300) < confidence
    found = {
        "reliability": {"own, unseen": reliability(confidence, right)},
        "risk coverage": {"own, unseen": risk_coverage(confidence, right)},
    }
    paths = draw(found, tmp_path / "one")
    assert sorted(path.name for path in paths) == [
        "reliability-own-unseen.png",
        "reliability-own-unseen.svg",
        "risk-coverage.png",
        "risk-coverage.svg",
    ]
    for path in paths:
        again = {p.name: p for p in draw(found, tmp_path / "two")}[path.name]
        assert path.stat().st_size > 3000 and path.read_bytes() == again.read_bytes()
    json.dumps(found)


def test_no_unsupported_claim_is_shown_unmarked(shipped):
    texts = ["it burns when I pee and I keep running to the loo", "treatment of gout", *invented()[:4]]
    row = claims_row(shipped, "few", texts)
    assert row["answers"] == 6 and row["claims"] > 0
    assert row["shown unmarked"] == 0 and row["wrongly marked"] == 0
    low, high = row["interval"]
    assert low <= row["unsupported per answer"] <= high


def test_an_unmarked_claim_would_be_found(shipped):
    answer = shipped.ask("it burns when I pee and I keep running to the loo")
    name = answer.conditions[0].name
    faked = replace(
        answer,
        symptoms=(Claim("green hair", 0.5, False), Claim("burning", 0.5, True)),
        treatments=(Claim("moon dust", 0.5, False),),
        reply=f"Typical of {name}: green hair, burning.\nUsual treatment: moon dust (not in my sources).",
    )
    assert unmarked(faked) == ["green hair"]


def test_marked_words_count_more_than_others(shipped):
    row = deletion_row(
        shipped,
        [
            "my big toe is red, hot and so sore that even the sheet hurts at night",
            "it burns when I pee and I keep running to the loo every half hour",
            "itchy raised wheals come and go all over my body within hours",
        ],
    )
    assert row["texts"] >= 2
    assert row["fall without the marked words"] > row["fall without as many others"]


def test_mean_intervals_hold_the_mean():
    low, high = mean_interval([0, 1, 2, 3] * 20)
    assert low < 1.5 < high and high - low < 1


def test_conditions_that_a_bundle_was_never_taught_are_told_from_known_ones(assistant, knowledge):
    taught = {c["name"] for c in assistant.conditions}
    texts: dict[str, list[str]] = {}
    for presentation in knowledge.presentations:
        if presentation.condition not in taught:
            texts.setdefault(presentation.condition, []).append(presentation.text)
    chosen = {name: texts[name][:2] for name in spread(sorted(texts), 60)}
    known = [p for p in knowledge.presentations if p.condition in taught][:80]
    row = held_out_row(
        assistant, chosen, judge(assistant, "known", [p.text for p in known], [p.condition for p in known])
    )
    assert row["conditions"] == 60 and row["questions"] == sum(map(len, chosen.values()))
    assert row["interval"][0] <= row["flagged"] <= row["interval"][1]
    # A tiny model knows little; it must still be surer of what it was taught than of what it was not.
    assert row["AUROC confidence"] > 0.5 and row["flagged"] >= row["flagged among known"] - 0.05
    assert sum(r["not flagged"] for r in row["not flagged"]) == round((1 - row["flagged"]) * row["questions"])


def test_the_open_set_row_counts_flags_and_orders_by_confidence():
    features = np.zeros(len(FEATURES))

    def judged(confidence, flagged):
        return Judgement(np.array([0.1, 0.9]), features, confidence, False, None, 0.0, 0.0, flagged)

    class Fake:
        def judge(self, text):
            return judged(float(text), float(text) < 0.6)

    known = Judged("known", tuple(judged(c, c < 0.6) for c in (0.9, 0.8, 0.7, 0.3)), None, None)
    row = held_out_row(Fake(), {"one": ["0.1", "0.2", "0.75"], "two": ["0.4"]}, known)
    assert (row["conditions"], row["questions"], row["known questions"]) == (2, 4, 4)
    assert row["flagged"] == 0.75 and row["flagged among known"] == 0.25
    # Of the sixteen pairs of a known and an unknown text, the known one is surer in thirteen.
    assert row["AUROC confidence"] == pytest.approx(13 / 16)
    assert row["AUROC margin"] == 0.5
    assert row["not flagged"] == [{"label": "one", "questions": 3, "not flagged": 1}]
    low, high = row["interval"]
    assert low == pytest.approx(2 / 3) and high == 1


def test_an_open_set_holds_unknown_labels_alone(shipped, tmp_path):
    path = tmp_path / "open.jsonl"
    path.write_text(json.dumps({"text": "my skin glows at night", "label": "Moon fever"}) + "\n")
    assert load_unknown(path, shipped) == {"Moon fever": ["my skin glows at night"]}
    path.write_text(json.dumps({"text": "my toe is sore", "label": "Gout"}) + "\n")
    with pytest.raises(SymptomChatError, match=r"open\.jsonl: the bundle knows the label Gout"):
        load_unknown(path, shipped)
    with pytest.raises(SymptomChatError, match="holds no texts"):
        held_out_row(shipped, {}, Judged("known", (), None, None))
