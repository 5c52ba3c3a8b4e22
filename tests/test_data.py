"""The built-in dataset is consistent."""

import json
from collections import Counter

import pytest
from tokenizers import Tokenizer

from symptomchat.corpus.knowledge import FILES, key, load_knowledge, merge
from symptomchat.corpus.sources import clean, from_file
from symptomchat.errors import SymptomChatError
from symptomchat.files import BASE, DATA
from symptomchat.runtime.assistant import whole_words
from symptomchat.runtime.triage import RedFlags


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


def test_has_at_least_700_conditions_told_in_full(knowledge):
    assert len(knowledge.conditions) >= 700
    for condition in knowledge.conditions:
        assert 8 <= len(condition.findings) <= 20, condition.name
        for field in (
            "icd10", "onset", "course", "risk_factors", "absences", "emergency_when", "treatments", "self_care",
        ):  # fmt: skip
            assert getattr(condition, field), (condition.name, field)


def test_every_finding_of_a_condition_exists(knowledge):
    named = {f.name for c in knowledge.conditions for f in c.findings}
    named |= {a.name for c in knowledge.conditions for a in c.absences}
    assert not named - set(knowledge.findings)


def test_confusable_conditions_exist(knowledge):
    for condition in knowledge.conditions:
        for confusable in condition.confusable:
            assert knowledge.find(confusable.name) not in (None, condition.name), condition.name


def test_at_least_1200_findings_are_said_in_ten_ways(knowledge):
    told = [f for f in knowledge.findings.values() if len({key(p) for p in f.phrasings}) >= 10]
    assert len(told) >= 1200
    assert sum(bool(f.near_misses) for f in told) >= 1000


def test_every_condition_has_six_presentations_in_several_voices(knowledge):
    texts = {}
    for presentation in knowledge.presentations:
        texts.setdefault(presentation.condition, []).append(presentation)
    for condition in knowledge.conditions:
        own = texts.get(condition.name, [])
        assert len({p.text for p in own}) >= 6, condition.name
        assert len({p.voice for p in own}) >= 4 and len({p.kind for p in own}) >= 2, condition.name
    assert len(knowledge.presentations) >= 8000


def test_names_and_aliases_do_not_collide(knowledge):
    owners = {}
    for condition in knowledge.conditions:
        for name in {key(n) for n in (condition.name, *condition.aliases)}:
            assert owners.setdefault(name, condition.name) == condition.name, name


def test_no_two_conditions_have_the_same_profile(knowledge):
    profiles = Counter(tuple(sorted(f.name for f in c.findings)) for c in knowledge.conditions)
    assert profiles.most_common(1)[0][1] == 1


def test_presentations_do_not_give_the_name_away(knowledge):
    for presentation in knowledge.presentations:
        assert presentation.condition in knowledge.by_name
        assert f" {presentation.condition.lower()} " not in f" {presentation.text.lower()} "


def test_whole_kinds_of_out_of_scope_questions_are_held_out(knowledge):
    held = {row.kind for row in knowledge.out_of_scope if row.held_out}
    used = {row.kind for row in knowledge.out_of_scope if not row.held_out}
    assert len(held) >= 3 and not held & used
    assert len({key(row.text) for row in knowledge.out_of_scope}) >= 600


def test_red_flags_fire_on_their_phrasings_and_not_on_their_negatives(knowledge):
    rules = RedFlags(
        [r.model_dump() for r in knowledge.red_flags],
        whole_words(Tokenizer.from_file(str(BASE / "tokenizer.json"))),
    )
    for rule in knowledge.red_flags:
        assert len(rule.positives) >= 15
        for text in rule.positives:
            assert rule.id in [f.id for f in rules.check(text)], (rule.id, text)
        for text in rule.negatives:
            assert rule.id not in [f.id for f in rules.check(text)], (rule.id, text)


def review(field):
    rows = [json.loads(line) for line in (DATA / "review.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["field"] == field]


def test_opinions_on_urgency_are_resolved_to_the_safe_side(knowledge):
    order = ("self_care", "see_doctor", "emergency")
    rows = review("urgency")
    assert rows
    for row in rows:
        assert order.index(row["resolved"]) == max(order.index(row["first"]), order.index(row["second"]))
        assert order.index(knowledge.by_name[row["condition"]].urgency) >= order.index(row["resolved"]), row


def test_what_only_the_second_opinion_named_is_in_the_record(knowledge):
    findings, treatments = review("findings"), review("treatments")
    assert findings and treatments
    for row in findings:
        own = {f.name for f in knowledge.by_name[row["condition"]].findings}
        assert row["resolved"].split(" added")[0] in own, row
    for row in treatments:
        if row["resolved"] == "added after the first":
            assert row["second"] in knowledge.by_name[row["condition"]].treatments, row


def test_datasets_library_loads_the_folder(tmp_path):
    import datasets

    loaded = datasets.load_dataset(str(DATA), "conditions", split="train", cache_dir=str(tmp_path))
    assert len(loaded) >= 700 and "findings" in loaded.column_names


def test_broken_record_names_file_line_and_field(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    rows = (DATA / FILES[0]).read_text(encoding="utf-8").splitlines()
    broken = json.loads(rows[2])
    broken["urgency"] = "whenever"
    rows[2] = json.dumps(broken)
    (tmp_path / FILES[0]).write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(SymptomChatError, match=r"conditions.jsonl: line 3: field 'urgency'"):
        load_knowledge(tmp_path)


SHARED = DATA.parents[1] / "shared" / "datasets"


def runs(text, n):
    words = key(text).split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def authored(knowledge):
    yield from (p.text for p in knowledge.presentations)
    for finding in knowledge.findings.values():
        yield from finding.phrasings
    for condition in knowledge.conditions:
        yield from (condition.course, condition.emergency_when, *condition.treatments, *condition.self_care)
        yield from (c.difference for c in condition.confusable)
    for rule in knowledge.red_flags:
        yield from (*rule.positives, *rule.negatives)
    yield from (row.text for row in knowledge.out_of_scope)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development parts are not on this machine")
def test_no_text_is_copied_from_the_development_parts(knowledge):
    foreign = set()
    for name in ("patient_sentences_dev.csv", "vignettes_dev.jsonl", "triage_dev.jsonl"):
        foreign |= runs((SHARED / name).read_text(encoding="utf-8-sig"), 6)
    shared = {run for text in authored(knowledge) for run in runs(text, 6) & foreign}
    # "a 34-year-old woman with" and chains of "no fever, no cough" are nobody's sentences.
    assert not {run for run in shared if "old" not in run and run.count("no") < 2}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the other sets are not on this machine")
def test_no_text_shares_ten_words_with_any_other_set(knowledge):
    ours = {run for text in authored(knowledge) for run in runs(text, 10)}
    for path in sorted(SHARED.rglob("*.*")):
        if path.suffix in (".csv", ".jsonl", ".json", ".tsv"):
            shared = ours & runs(path.read_text(encoding="utf-8-sig"), 10)
            assert not {run for run in shared if "old" not in run and run.count("no") < 2}, path.name


def test_a_name_that_is_too_wide_merges_a_list_and_answers_nobody(knowledge):
    """ "Fracture" in somebody's list is the ankle's; whoever asks what a fracture is gets no answer about ankles."""
    wide = {name: c.name for c in knowledge.conditions for name in c.listed_as}
    assert wide["Fracture"] == "Ankle fracture"
    for name, condition in wide.items():
        assert knowledge.find(name) == condition and key(name) not in knowledge.names
    _, table = merge(knowledge, [("fracture", ["ankle pain"], ["boot"])])
    assert (table[0]["result"], table[0]["condition"]) == ("matched", "Ankle fracture")


@pytest.mark.parametrize(
    "name, condition",
    [
        ("athlete's foot", "Tinea pedis"), ("herniated disc", "Lumbar disc herniation"),
        ("chlamydia trachomatis", "Chlamydia infection"), ("cholangitis", "Acute cholangitis"),
        ("brain haemorrhage", "Intracerebral hemorrhage"), ("PE", "Pulmonary embolism"),
        ("viral hepatitis", None), ("psychosis", None), ("viral meningitis", None),
    ],
)  # fmt: skip
def test_a_name_is_its_own_condition_and_a_class_is_none(knowledge, name, condition):
    assert knowledge.names.get(key(name)) == condition


@pytest.mark.skipif(not SHARED.is_dir(), reason="the 400-row set is not on this machine")
def test_every_condition_of_the_public_set_is_known(knowledge):
    records = clean(from_file(SHARED / "diseases_symptoms.csv")).records
    assert not [name for name, _, _ in records if knowledge.find(name) is None]
