"""An answer names findings and treatments that the bundle knows, in their own words, and its record's first."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from symptomchat import load
from symptomchat.corpus import narratives
from symptomchat.files import DATA, MODELS, read_jsonl, read_text
from symptomchat.language.grammar import Grammar
from symptomchat.runtime.decoding import BONUS, FULL, MOST, Vocabulary
from symptomchat.runtime.engine import Engine

SHIPPED = MODELS / "symptomchat"
RECORDS = [
    {"symptoms": ["cough", "cough at night", "wheeze"], "treatments": ["inhaler", "MRI scan"]},
    {"symptoms": ["fever", "night sweats", "cough"], "treatments": ["rest"]},
    {"symptoms": ["loss of smell"], "treatments": []},
]


@pytest.fixture(scope="module")
def grammar():
    return Grammar(Tokenizer.from_str(read_text(SHIPPED / "tokenizer.json")), 192, 64)


@pytest.fixture(scope="module")
def vocabulary(grammar):
    return Vocabulary(grammar, RECORDS)


@pytest.fixture(scope="module")
def shipped():
    return load(SHIPPED)


def tokens_of(guide):
    return set(guide.options()[0].tolist())


def gains_of(guide):
    tokens, gains = guide.options()
    return dict(zip(tokens.tolist(), gains.tolist(), strict=True))


def say(guide, grammar, *parts):
    """Lead a guide through texts and marks."""
    for part in parts:
        for token in [part] if isinstance(part, int) else grammar.pieces(part):
            guide.take(token)
    return guide


def wander(guide, grammar, random, steps=64):
    """Follow a model whose logits are noise."""
    for _ in range(steps):
        if guide.choose(random.normal(size=grammar.none).astype("float32")) == grammar.end:
            return True
    return False


def test_whatever_the_model_wants_an_answer_names_known_entries_once_each(grammar, vocabulary):
    known = [{text for record in RECORDS for text in record[part]} for part in ("symptoms", "treatments")]
    random = np.random.default_rng(3)
    lengths = set()
    for at in range(200):
        guide = vocabulary.guide(RECORDS[at % 3])
        assert wander(guide, grammar, random)
        for part in (0, 1):
            named = [entry.text for entry in guide.named if entry.part == part]
            assert len(named) == len(set(named)) and set(named) <= known[part]
            lengths.add((part, len(named)))
    assert {(0, 1), (0, 3), (1, 0), (1, 2)} <= lengths


def test_an_answer_is_no_longer_than_those_that_the_model_learned_from(grammar):
    assert MOST == (narratives.SYMPTOMS_SHOWN, narratives.TREATMENTS_SHOWN)
    words = [
        "fever", "cough", "rash", "pain", "itch", "sweat", "nausea", "thirst", "cramp", "wheeze",
        "rest", "water", "ice", "heat", "salt", "sleep",
    ]  # fmt: skip
    record = {"symptoms": words[:10], "treatments": words[10:]}
    guide = Vocabulary(grammar, [record]).guide(record)
    logits = np.zeros(grammar.none, "float32")
    logits[grammar.item] = 50
    logits[[grammar.end, grammar.treatments]] = [-50, -40]
    while guide.choose(logits) != grammar.end:
        pass
    assert [sum(entry.part == part for entry in guide.named) for part in (0, 1)] == list(MOST)


def test_long_findings_leave_room_for_treatments(grammar, shipped):
    """Whatever is said first: no finding begins after ``FULL`` tokens, and the treatments come within the answer."""
    assert FULL + 24 <= 64 == shipped.engine.answer_tokens
    begins = []
    for at in range(0, len(shipped.conditions), 40):
        guide = shipped.vocabulary.guide(shipped.conditions[at], 0.0)
        logits = np.random.default_rng(at).normal(size=grammar.none).astype("float32")
        logits[[grammar.item, grammar.end]] -= [20, 60]
        logits[grammar.treatments] -= 40
        tokens = 1
        while guide.choose(logits) not in (grammar.treatments, grammar.end):
            tokens += 1
        assert tokens < shipped.engine.answer_tokens
        begins += [entry.begin for entry in guide.named if entry.part == 0]
    assert max(begins) > FULL - 12 and max(begins) <= FULL + 1


def test_an_item_ends_only_where_an_entry_is_complete(grammar, vocabulary):
    guide = say(vocabulary.guide(RECORDS[0]), grammar, grammar.intents[0])
    marks = {grammar.item, grammar.treatments, grammar.end}
    assert tokens_of(guide) & marks == {grammar.treatments}
    say(guide, grammar, "cough")
    assert marks < tokens_of(guide) and grammar.pieces("at")[0] in tokens_of(guide)
    say(guide, grammar, "at")
    assert not tokens_of(guide) & marks and tokens_of(guide) == {grammar.pieces("night")[0]}
    say(guide, grammar, "night", grammar.item)
    assert [entry.text for entry in guide.named] == ["cough at night"]
    # What begins like an entry that was named can still be said, and then nothing but its end can follow.
    say(guide, grammar, "cough")
    assert tokens_of(guide) == marks
    say(guide, grammar, grammar.item)
    assert grammar.pieces("cough")[0] not in tokens_of(guide)


def test_findings_and_treatments_keep_to_their_parts(grammar, vocabulary):
    guide = say(vocabulary.guide(RECORDS[0]), grammar, grammar.intents[2])
    assert grammar.pieces("inhaler")[0] not in tokens_of(guide)
    say(guide, grammar, grammar.treatments)
    assert tokens_of(guide) == {grammar.pieces(text)[0] for text in ("inhaler", "MRI scan", "rest")}
    say(guide, grammar, "MRI scan", grammar.end)
    # Capitals are those of the record: the tokens know none.
    assert [(entry.part, entry.text) for entry in guide.named] == [(1, "MRI scan")]


def test_what_may_not_follow_is_refused(grammar, vocabulary):
    guide = vocabulary.guide(RECORDS[0])
    with pytest.raises(ValueError, match="may not follow"):
        guide.take(grammar.end)
    say(guide, grammar, grammar.intents[0])
    with pytest.raises(ValueError, match="may not follow"):
        guide.take(grammar.item)


def test_the_record_goes_first_until_nothing_of_it_is_left(grammar, vocabulary):
    record = RECORDS[1]
    guide = say(vocabulary.guide(record, 5.0), grammar, grammar.intents[0])
    gains = gains_of(guide)
    for text, gain in (("fever", 5.0), ("night sweats", 5.0), ("cough", 5.0), ("wheeze", 0.0)):
        assert gains[grammar.pieces(text)[0]] == gain
    # "cough" is of this record, "cough at night" is not.
    say(guide, grammar, "cough")
    gains = gains_of(guide)
    assert gains[grammar.pieces("at")[0]] == 0.0 and gains[grammar.item] == gains[grammar.end] == 5.0
    say(guide, grammar, grammar.item, "fever", grammar.item, "night sweats")
    gains = gains_of(guide)
    assert gains[grammar.item] == 0.0 and gains[grammar.treatments] == gains[grammar.end] == 5.0
    say(guide, grammar, grammar.treatments, "rest")
    assert gains_of(guide)[grammar.item] == 0.0 and gains_of(guide)[grammar.end] == 5.0


def test_the_model_leaves_the_record_where_it_is_surer_than_the_bonus(grammar, vocabulary):
    for sure, expected in ((4.0, "fever"), (6.0, "loss of smell")):
        guide = say(vocabulary.guide(RECORDS[1], 5.0), grammar, grammar.intents[0])
        logits = np.zeros(grammar.none, "float32")
        logits[grammar.pieces("fever")[0]] = 0.5
        logits[grammar.pieces("loss")[0]] = 0.5 + sure
        logits[grammar.end] = 20
        while guide.choose(logits) != grammar.end:
            pass
        assert [entry.text for entry in guide.named] == [expected]


def test_log_probabilities_are_those_of_the_model_itself(grammar, vocabulary):
    """Neither what is left out nor what a token gains makes a claim look surer than the model is."""
    random = np.random.default_rng(11)
    rows = random.normal(size=(64, grammar.none)).astype("float32") * 3
    rows[:, grammar.end] -= 20

    class Fake(Engine):
        answer_tokens = 64

        def __init__(self):
            pass

        def _fresh(self, question):
            return {}

        def _step(self, question, token, at, cache):
            return rows[at]

    guide = vocabulary.guide(RECORDS[0])
    found = list(Fake().generate(None, grammar.none + 1, grammar.end, guide))
    assert found[-1][0] == grammar.end and len(found) > 3
    for (token, log), row in zip(found, rows, strict=False):
        wide = row.astype("float64")
        assert log == pytest.approx(wide[token] - np.log(np.exp(wide).sum()), abs=1e-4)
    # Without a guide the likeliest of all tokens is taken.
    free = next(Fake().generate(None, grammar.none + 1, grammar.end))
    assert free[0] == int(rows[0].argmax())


def test_names_that_are_written_alike_are_one_entry(grammar):
    records = [{"symptoms": ["Fever", "fever", ""], "treatments": []}]
    guide = say(Vocabulary(grammar, records).guide(records[0]), grammar, grammar.intents[0], "fever")
    assert tokens_of(guide) == {grammar.end}
    say(guide, grammar, grammar.end)
    assert [entry.text for entry in guide.named] == ["Fever"]


def test_names_that_hold_marks_or_no_entries_at_all_break_nothing(grammar):
    records = [{"symptoms": ["[end] of sleep", "<c:gout> pain"], "treatments": []}]
    vocabulary = Vocabulary(grammar, records)
    guide = say(vocabulary.guide(records[0]), grammar, grammar.intents[0])
    assert grammar.end not in tokens_of(guide) and max(tokens_of(guide)) < grammar.end
    assert wander(guide, grammar, np.random.default_rng(1)) and guide.named
    empty = say(
        Vocabulary(grammar, [{"symptoms": [], "treatments": []}]).guide({"symptoms": [], "treatments": []}),
        grammar,
        grammar.intents[0],
    )
    assert tokens_of(empty) == {grammar.end}


def test_the_shipped_model_names_known_entries_and_hardly_one_outside_the_record(shipped):
    texts = [row["text"] for _, row in read_jsonl(DATA / "presentations.jsonl")][7::800]
    known = [{text for c in shipped.conditions for text in c[part]} for part in ("symptoms", "treatments")]
    said = [(at, claim) for text in texts for answer in [shipped.ask(text)]
            for at, claims in enumerate((answer.symptoms, answer.treatments)) for claim in claims]  # fmt: skip
    assert len(texts) > 8 and len(said) > 4 * len(texts)
    assert all(claim.text in known[at] for at, claim in said)
    assert all(0 < claim.confidence <= 1 for _, claim in said)
    assert sum(not claim.grounded for _, claim in said) < 0.1 * len(said)
    # They are not all of the record only because nothing else is allowed.
    loose = shipped.vocabulary.guide(shipped.conditions[0], 0.0)
    assert BONUS > 0 and not loose.options()[1].any()


def test_judging_makes_no_trie(shipped):
    fresh = load(SHIPPED)
    fresh.judge("a dry cough at night")
    assert "vocabulary" not in vars(fresh)


def test_answers_that_are_generated_side_by_side_do_not_mix(shipped):
    """The decoder keeps a question's cache from step to step; another question in between changes nothing."""
    grammar, engine = shipped.grammar, shipped.engine
    ids = [
        grammar.question(text) for text in ("my big toe is red and hot", "itchy eyes and sneezing in spring")
    ]
    first, second = (engine.prefill(row) for row in ids)

    def answer(question):
        return engine.generate(
            question, grammar.none + 9, grammar.end, shipped.vocabulary.guide(shipped.conditions[8])
        )

    alone = [list(answer(first)), list(answer(second))]
    mixed: list[list] = [[], []]
    for at, pair in enumerate(zip(answer(first), answer(second), strict=False)):
        for tokens, token in zip(mixed, pair, strict=True):
            tokens.append(token)
        engine.rank(ids[at % 2])
    assert len(mixed[0]) > 10 and mixed == [row[: len(mixed[0])] for row in alone]
    between = []
    for token in answer(first):
        between.append(token)
        engine.rank(ids[1]), engine.prefill(ids[1])
    assert between == alone[0]


def test_many_texts_are_cut_as_one_by_one(grammar, shipped):
    texts = [text for c in shipped.conditions for part in ("symptoms", "treatments") for text in c[part]][
        ::15
    ]
    texts += [
        "",
        " ",
        "a  b",
        "[end] [;] <c:gout>x",
        "naïve café—½ 头疼",
        "x" * 101,
        "38.5°C\tand\nmore",
        "half \ud83d",
    ]
    assert grammar.pieces_of(texts) == [grammar.pieces(text) for text in texts]
