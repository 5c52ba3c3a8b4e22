"""A bundle's knowledge takes few bytes and says what it said before."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from symptomchat.files import MODELS, read_json, read_text
from symptomchat.language.grammar import Grammar
from symptomchat.phone.records import compact_tokenizer, join, pack, split, unpack

SHIPPED = MODELS / "symptomchat"


def size(value):
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.fixture(scope="module")
def knowledge():
    return unpack(read_json(SHIPPED / "knowledge.json"))


def test_what_is_stored_is_read_back_whole(knowledge):
    stored = json.loads(json.dumps(pack(knowledge), ensure_ascii=False))
    found = unpack(stored)
    kept = [{name: value for name, value in c.items() if name != "id"} for c in knowledge["conditions"]]
    assert found["conditions"] == kept and found["phrasings"] == knowledge["phrasings"]
    assert knowledge["names"].items() <= found["names"].items()
    assert all(found[name] == knowledge[name] for name in knowledge if name not in ("conditions", "names"))
    assert size(stored) < 0.7 * size(knowledge)


def test_odd_texts_and_empty_lists_survive():
    condition = {
        "name": "A|B", "aliases": [], "symptoms": ["x|y", "z"], "frequencies": [50, 5], "treatments": [], "self_care": ["tea"],
        "urgency": "see_doctor", "emergency_when": "", "confusable": [{"name": "nobody's", "difference": ""}],
    }  # fmt: skip
    other = {
        "name": "C", "aliases": ["c one", "A|B"], "symptoms": ["z"], "frequencies": [20], "treatments": ["rest"], "self_care": [],
        "urgency": "self_care", "emergency_when": "never", "confusable": [{"name": "A|B", "difference": "a|b"}, {"name": "C", "difference": "d"}],
    }  # fmt: skip
    for conditions in ([condition], [condition, other], [other, condition]):
        values = {
            "conditions": conditions,
            "names": {"see": "A|B"},
            "phrasings": {"z": ["zed", "a|z"]},
            "more": 1,
        }
        found = unpack(json.loads(json.dumps(pack(values))))
        assert found["conditions"] == conditions and found["more"] == 1
        assert found["phrasings"] == {"z": ["zed", "a|z"]}
        assert found["names"]["see"] == "A|B" and found["names"]["a b"] == "A|B"


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "b c"], [""], ["a|b"], ["", "a"], ["|"]])
def test_joined_texts_come_apart_again(texts):
    assert split(join(texts)) == texts


def test_a_knowledge_base_of_another_kind_is_refused():
    for value in ({}, {"conditions": {}}, {"conditions": {"name": "a"}, "texts": {}}):
        with pytest.raises((KeyError, IndexError, TypeError, ValueError)):
            unpack(value)


def test_a_compact_tokenizer_gives_the_same_ids(knowledge):
    text = read_text(SHIPPED / "tokenizer.json")
    compact = compact_tokenizer(json.loads(text))
    assert compact_tokenizer(compact) == compact
    one = Grammar(Tokenizer.from_str(text), 192, 64)
    other = Grammar(Tokenizer.from_str(json.dumps(compact)), 192, 64)
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert (one.none, one.end, one.size, one.intents) == (other.none, other.end, other.size, other.intents)
    texts = ["<c:gout> [end] [SEP]", "a swollen toe", "c : gout", *list(knowledge["phrasings"])[::40]]
    assert [one.question(text) for text in texts] == [other.question(text) for text in texts]
    ids = np.random.default_rng(0).integers(5, one.end, 200).tolist()
    assert one.tokenizer.decode(ids) == other.tokenizer.decode(ids)
