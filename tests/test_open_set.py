"""Conditions that a run withholds: nothing of them is learned, and one can ask about them."""

from collections import Counter

import numpy as np
import pytest

from symptomchat.corpus.knowledge import load_knowledge
from symptomchat.corpus.sources import parse_columns
from symptomchat.corpus.split import CHAPTERS, chapter, draw_withheld, withhold
from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.suites import load_suite
from symptomchat.files import read_json, read_jsonl
from symptomchat.pipeline import Options, Run, corpus_stage
from symptomchat.recipe import load_recipe
from tests.conftest import run_command


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


def recipe_with(*overrides):
    return load_recipe("tiny", list(overrides))


def test_whole_categories_are_withheld_from_every_chapter(knowledge):
    gone = draw_withheld(knowledge.conditions, 120, seed=7)
    assert len(gone) == 120 and gone == draw_withheld(knowledge.conditions, 120, seed=7)
    assert len(gone & draw_withheld(knowledge.conditions, 120, seed=8)) < 60
    sides = {}
    for condition in knowledge.conditions:
        sides.setdefault(condition.icd10[:3], set()).add(condition.id in gone)
    assert all(len(side) == 1 for side in sides.values())
    chapters = Counter(chapter(c) for c in knowledge.conditions if c.id in gone)
    assert len(chapters) == len({chapter(c) for c in knowledge.conditions}) and max(chapters.values()) < 15


def test_chapters_follow_the_codes(knowledge):
    def of(code):
        return chapter(knowledge.conditions[0].model_copy(update={"icd10": code}))

    assert of("A00.1") == of("B99") == 1 and of("D48") == 2 and of("D50") == 3
    assert of("H59") != of("H60") and of("S01") == of("T98") and of("") == 0
    assert list(CHAPTERS) == sorted(CHAPTERS)


def test_what_stays_names_nothing_that_is_withheld(knowledge):
    options = recipe_with("data.withheld_conditions=200").data
    known, gone = withhold(knowledge, options, seed=7)
    assert (len(known.conditions), len(gone.conditions)) == (765, 200)
    names = {c.name for c in gone.conditions}
    assert not any(known.find(name) for name in names)
    twins = {gone.find(c.name) for condition in known.conditions for c in condition.confusable}
    assert twins == {None}
    before = sum(len(c.confusable) for c in knowledge.conditions if c.name in known.by_name)
    assert 0 < sum(len(c.confusable) for c in known.conditions) < before
    assert {p.condition for p in known.presentations} == set(known.by_name)
    assert withhold(knowledge, recipe_with().data, 7)[0] is knowledge


def test_a_file_names_what_is_withheld_and_the_recipe_keeps_the_names(knowledge, tmp_path):
    path = tmp_path / "ids.txt"
    ids = [c.id for c in knowledge.conditions]
    path.write_text(f"# two of them\n{ids[3]}\n\n{ids[8]}  # and this\n")
    options = recipe_with(f"data.withheld={path}").data
    assert options.withheld == (ids[3], ids[8])
    known, gone = withhold(knowledge, options, seed=7)
    assert [c.id for c in gone.conditions] == [ids[3], ids[8]] and len(known.conditions) == len(ids) - 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (['data.withheld=["no-such-thing"]'], "no condition 'no-such-thing'"),
        (["data.withheld_conditions=2000"], "keep at least two"),
    ],
)
def test_what_cannot_be_withheld_is_said(knowledge, overrides, words):
    with pytest.raises(SymptomChatError, match=words):
        withhold(knowledge, recipe_with(*overrides).data, seed=7)
    with pytest.raises(SymptomChatError, match="nowhere.txt"):
        recipe_with("data.withheld=nowhere.txt")


def test_the_corpus_holds_nothing_of_the_withheld_and_their_questions_are_a_suite(tmp_path):
    """Another source and reference texts name them again; that does not bring them back."""
    conditions = load_knowledge(conditions=12).conditions
    gone = conditions[4]
    own, references = tmp_path / "own.csv", tmp_path / "references.jsonl"
    own.write_text(f'Name,Symptoms\n{gone.name},"fever, cough"\n{conditions[1].name},"fever, cough"\n')
    answer = "It often begins with fever and a cough. Many people also have pain in the chest."
    references.write_text(
        f'{{"focus": "{gone.name}", "qtype": "symptoms", "answer": "{answer}", "synonyms": ["{conditions[1].name}"]}}\n'
    )
    recipe = recipe_with(
        f'data.withheld=["{gone.id}"]', f"data.references={references}", "stored_targets=true"
    )
    options = Options(
        tmp_path / "bundle", tmp_path / "report", True, (own,), parse_columns("name=Name,symptoms=Symptoms")
    )
    run = Run(recipe, options)
    run.work.mkdir(parents=True)
    corpus_stage(run)
    assert len(run.corpus.knowledge.conditions) == 11 and gone.name not in run.order
    exchanges = run.corpus.training + run.corpus.validation + run.corpus.calibration
    assert {e.source for e in exchanges} >= {str(own), "narratives", "presentations"}
    assert not any(e.condition == gone.name for e in exchanges)
    assert not any(e.source == "medquad" for e in exchanges)
    authored = {p.text for p in load_knowledge().presentations if p.condition == gone.name}
    assert authored and not authored & {e.question for e in exchanges}
    # Stored soft targets come from a teacher that was taught all conditions.
    assert run.targets is None
    suite = load_suite(run.work / "unknown.jsonl")
    assert {case.label for case in suite} == {gone.name}
    kinds = Counter(row["kind"] for _, row in read_jsonl(run.work / "unknown.jsonl"))
    assert kinds == {"told": 6, "named": 1}
    assert read_json(run.work / "sources.json")["withheld"] == [gone.id]


@pytest.mark.long
def test_a_bundle_without_some_conditions_is_asked_about_them(tmp_path):
    bundle = tmp_path / "bundle"
    done = run_command(
        "train.py", "--recipe", "tiny", "--offline", "--set", "data.withheld_conditions=4", "--output", str(bundle),
        "--report", str(tmp_path / "report"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    from symptomchat import load
    from symptomchat.evaluation.trust import held_out_row, load_unknown, own_unseen

    assistant = load(bundle)
    unknown = load_unknown(bundle / "work" / "unknown.jsonl", assistant)
    assert len(assistant.conditions) == 8 and len(unknown) == 4
    assert not set(unknown) & {case.label for case in own_unseen(assistant)}
    row = held_out_row(assistant, unknown)
    assert row["conditions"] == 4 and row["questions"] == sum(map(len, unknown.values()))
    assert np.isfinite(row["AUROC confidence"])
