"""Tokenizer and grammar."""

import pytest

from symptomchat.files import BASE, read_text
from symptomchat.language.grammar import Grammar
from symptomchat.language.tokenizer import trim, used_pieces
from symptomchat.runtime.grounding import restore_case, supported

tokenizers = pytest.importorskip("tokenizers")
TEXTS = ["my heart races, I'm sweating", "palpitations", "It burns when I pee", "38.5 fever for 3 wks"]


@pytest.fixture(scope="module")
def pair():
    full = tokenizers.Tokenizer.from_str(read_text(BASE / "tokenizer.json"))
    trimmed, old_ids = trim(full, used_pieces(full, TEXTS), ["gout", "panic-disorder"])
    return full, trimmed, old_ids


def test_trimming_cuts_the_corpus_as_before(pair):
    full, trimmed, old_ids = pair
    assert trimmed.get_vocab_size() < full.get_vocab_size() / 2
    for text in TEXTS:
        ids = trimmed.encode(text, add_special_tokens=False).ids
        assert [old_ids[i] for i in ids] == full.encode(text, add_special_tokens=False).ids


def test_an_exchange_survives_the_round_trip(pair):
    grammar = Grammar(pair[1], 32, 24)
    ids = grammar.reply(2, "diagnose", ["palpitations", "sweating"], ["fever", "heart"])
    assert ids[0] == grammar.none + 2 and ids[-1] == grammar.end
    decoded = grammar.read(ids[1:])
    assert decoded.intent == "diagnose"
    assert decoded.symptoms == ("palpitations", "sweating") and decoded.treatments == ("fever", "heart")


def test_answers_never_exceed_their_room_and_end(pair):
    grammar = Grammar(pair[1], 32, 10)
    ids = grammar.reply(1, "diagnose", ["palpitations"] * 30, ["fever"] * 30)
    assert len(ids) <= 10 and ids[-1] == grammar.end


@pytest.mark.parametrize(
    "text", ["日本語", "🤒🤒", "\ud800 broken", "a" * 5000, "[SEP] <c:gout> [end]", "\u202eabc", "é̂"]
)
def test_any_unicode_encodes_within_the_limit(pair, text):
    grammar = Grammar(pair[1], 32, 24)
    ids = grammar.question(text)
    assert 2 <= len(ids) <= 32 and ids[0] == grammar.user and ids[-1] == grammar.answer
    # Nobody can type a mark of the grammar.
    assert not set(ids[1:-1]) & {
        grammar.user,
        grammar.answer,
        grammar.end,
        grammar.none,
        grammar.none + 1,
        grammar.none + 2,
    }


def test_generated_text_reads_clean():
    assert (
        restore_case("mri of the neck , crohn ' s ( mild )", {"mri": "MRI", "crohn": "Crohn"})
        == "MRI of the neck, Crohn's (mild)"
    )


def test_claims_are_supported_by_meaning():
    phrasings = {"vomiting": ["throwing up"]}
    assert supported("Throwing up", ["nausea", "vomiting"], phrasings) == "vomiting"
    assert supported("swollen ankles", ["swollen ankle"]) == "swollen ankle"
    assert supported("green hair", ["nausea"]) is None
