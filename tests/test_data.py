"""The built-in dataset is consistent."""

import json
from collections import Counter

import pytest

from symptomchat.corpus.knowledge import FILES, key, load_knowledge
from symptomchat.errors import SymptomChatError
from symptomchat.files import DATA
from symptomchat.runtime.triage import RedFlags


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


def test_has_at_least_150_conditions_with_symptoms_and_treatments(knowledge):
    assert len(knowledge.conditions) >= 150
    assert all(len(c.findings) >= 4 and c.treatments for c in knowledge.conditions)


def test_every_finding_of_a_condition_exists(knowledge):
    missing = {f.name for c in knowledge.conditions for f in c.findings} - set(knowledge.findings)
    assert not missing


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


def test_red_flags_fire_on_their_phrasings_and_not_on_their_negatives(knowledge):
    rules = RedFlags([r.model_dump() for r in knowledge.red_flags])
    for rule in knowledge.red_flags:
        assert len(rule.positives) >= 15
        for text in rule.positives:
            assert rule.id in [f.id for f in rules.check(text)], (rule.id, text)
        for text in rule.negatives:
            assert rule.id not in [f.id for f in rules.check(text)], (rule.id, text)


def test_datasets_library_loads_the_folder():
    import datasets

    loaded = datasets.load_dataset(str(DATA), "conditions", split="train")
    assert len(loaded) >= 150 and "findings" in loaded.column_names


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


def test_no_text_is_copied_from_the_development_parts(knowledge):
    folder = DATA.parents[1] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip("the development parts are not on this machine")

    def runs(text, n):
        words = key(text).split()
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    foreign = set()
    for name in ("patient_sentences_dev.csv", "vignettes_dev.jsonl", "triage_dev.jsonl"):
        foreign |= runs((folder / name).read_text(encoding="utf-8-sig"), 6)
    ours = [p.text for p in knowledge.presentations] + [
        w for f in knowledge.findings.values() for w in f.phrasings
    ]
    shared = {run for text in ours for run in runs(text, 6) & foreign}
    # "a 34-year-old woman with" and chains of "no fever, no cough" are nobody's sentences.
    shared = {run for run in shared if "old" not in run and run.count("no") < 2}
    assert not shared
