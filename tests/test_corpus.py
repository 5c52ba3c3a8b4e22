"""Sources, cleaning, split and generator."""

import json

import pandas as pd
import pytest

from symptomchat.corpus.knowledge import load_knowledge, merge
from symptomchat.corpus.medquad import load_references, reference_exchanges
from symptomchat.corpus.narratives import Generator
from symptomchat.corpus.sources import clean, from_file, parse_columns
from symptomchat.corpus.split import check_no_leak, split_by_group
from symptomchat.errors import SymptomChatError
from symptomchat.recipe import DataPart

HEADER = "Code,Name,Symptoms,Treatments\n"


def csv(tmp_path, text, name="own.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_cleaning_strips_marks_merges_doubles_and_says_so(tmp_path):
    path = csv(
        tmp_path,
        "\ufeff"
        + HEADER
        + '1,Gout ,"Toe pain, [Redness]","Rest"\n2,gout,"Swelling","Ice"\n3,Ethylene x-1,"Pain","Help"\n'
        '4,Ethylene x-2,"Nausea","Help"\n5,Gout ,"Toe pain, [Redness]","Rest"\n',
    )
    cleaned = clean(from_file(path))
    names = [name for name, _, _ in cleaned.records]
    assert names == ["Gout", "Ethylene x"]
    assert cleaned.records[0][1] == ["Toe pain", "Redness", "Swelling"]
    assert cleaned.counts["rows"] == 5 and cleaned.counts["conditions after cleaning"] == 2
    assert {row["what"] for row in cleaned.report} == {"merged", "renamed", "dropped"}


def test_csv_jsonl_and_parquet_give_the_same_records(tmp_path):
    frame = pd.DataFrame({"Name": ["A disease"], "Symptoms": ["pain, fever"], "Treatments": ["rest"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    records = [clean(from_file(tmp_path / f"a.{kind}")).records for kind in ("csv", "jsonl", "parquet")]
    assert records[0] == records[1] == records[2] == [("A disease", ["pain", "fever"], ["rest"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Name,Signs\na,b\n", "column 'Symptoms' is missing"),
        ("Name,Symptoms\na,\n", "row 2: column 'Symptoms' is empty"),
        ("Name,Name,Symptoms\na,b,c\n", "column 'Name' stands twice"),
        ("Name,Symptoms\na,b,c\n", "row 2: has 3 cells"),
        ("", "is empty"),
        ("Name,Symptoms\n", "holds no rows"),
        ("\x00\x01\x02", "binary data"),
    ],
)
def test_bad_csv_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(SymptomChatError, match=message) as caught:
        from_file(csv(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_not_utf8_and_broken_parquet_are_one_clear_line(tmp_path):
    with pytest.raises(SymptomChatError, match="not UTF-8"):
        from_file(csv(tmp_path, "Name,Symptoms\nMénière,dizzy\n", encoding="latin-1"))
    with pytest.raises(SymptomChatError, match="not a readable Parquet"):
        from_file(csv(tmp_path, "garbage", name="x.parquet"))


def test_column_mapping():
    assert parse_columns("name=Disease,symptoms=Signs")["symptoms"] == "Signs"
    with pytest.raises(SymptomChatError, match="write for example"):
        parse_columns("disease:Name")


def test_split_is_by_group_stable_and_seeded():
    rows = [(f"group {i // 3}", i) for i in range(600)]
    training, validation = split_by_group(rows, lambda r: r[0], 0.8, seed=1)
    assert 0.72 < len(training) / 600 < 0.88
    again, _ = split_by_group(rows + [("new", 1)], lambda r: r[0], 0.8, seed=1)
    assert [r for r in again if r[0] != "new"] == training
    other, _ = split_by_group(rows, lambda r: r[0], 0.8, seed=2)
    assert other != training
    with pytest.raises(SymptomChatError, match="both sides"):
        check_no_leak(training, [*validation, training[0]], lambda r: r[0])


def test_own_records_match_by_alias_or_become_new_conditions():
    knowledge = load_knowledge()
    extended, table = merge(
        knowledge, [("GERD", ["heartburn"], []), ("Zorb fever", ["puking", "glowing ears"], ["rest"])]
    )
    assert [row["result"] for row in table] == ["matched", "new"]
    new = extended.by_name["Zorb fever"]
    assert [f.name for f in new.findings] == ["vomiting", "glowing ears"]
    assert "glowing ears" in extended.findings


def test_generator_is_deterministic_and_varied():
    knowledge = load_knowledge(conditions=20)
    make = lambda: list(Generator(knowledge, DataPart(narratives_per_condition=20)).all(seed=3))  # noqa: E731
    first, second = make(), make()
    assert first == second
    narratives = [e.question for e in first if e.source == "narratives"]
    assert len(set(narratives)) > 0.97 * len(narratives)
    assert any(e.condition is None for e in first)
    held = {row.text for row in knowledge.out_of_scope if row.held_out}
    assert not held & {e.question for e in first}


def test_a_condition_with_a_single_finding_is_enough():
    knowledge, _ = merge(load_knowledge(conditions=3), [("Zorb fever", ["glowing ears"], [])])
    generator = Generator(knowledge, DataPart(narratives_per_condition=60))
    assert sum(e.condition == "Zorb fever" for e in generator.all(seed=1)) >= 60


def test_leaving_negation_out_leaves_it_out():
    knowledge = load_knowledge(conditions=15)
    generator = Generator(knowledge, DataPart(negation=False, narratives_per_condition=10))
    texts = [e.question.lower() for e in generator.all(seed=1) if e.source == "narratives"]
    assert not any(" denies " in text or "negative for" in text for text in texts)


def test_each_switch_of_the_generator_changes_its_text():
    knowledge = load_knowledge(conditions=25)

    def questions(**options):
        part = DataPart(narratives_per_condition=12, **options)
        return [e.question for e in Generator(knowledge, part).all(seed=1)]

    everything = questions()
    for name in ("phrasings", "presentations", "negation", "demographics", "confusables", "asides"):
        assert questions(**{name: False}) != everything, name
    authored = {p.text for p in knowledge.presentations}
    assert authored & set(everything) and not authored & set(questions(presentations=False))


def test_generator_keeps_its_speed():
    import time

    knowledge = load_knowledge(conditions=150)
    start = time.process_time()
    count = sum(1 for _ in Generator(knowledge, DataPart(narratives_per_condition=20)).all(seed=1))
    assert count / (time.process_time() - start) >= 2000


def test_common_conditions_are_told_more_often_than_rare_ones():
    knowledge = load_knowledge()
    generator = Generator(knowledge, DataPart(narratives_per_condition=10, presentations=False))
    told = {
        c.name: sum(e.source == "narratives" for e in generator.of_condition(c, 1))
        for c in knowledge.conditions
    }
    mean = {n: [told[c.name] for c in knowledge.conditions if c.common == n] for n in (1, 5)}
    assert sum(mean[5]) / len(mean[5]) > sum(mean[1]) / len(mean[1])


def test_findings_that_a_user_s_file_alone_knows_are_trained_and_listed(tmp_path):
    path = csv(tmp_path, 'Name,Symptoms\nGERD,"heartburn, purple toes"\nZorb fever,"puking, glowing ears"\n')
    extended, table = merge(load_knowledge(), clean(from_file(path)).records)
    assert [row["unknown findings"] for row in table] == ["purple toes", "glowing ears"]
    assert "glowing ears" in [f.name for f in extended.by_name["Zorb fever"].findings]


MEDQUAD = [
    {"focus": "GERD", "synonyms": ["Acid reflux"], "qtype": "symptoms", "answer": "GERD causes burning behind the breastbone. Acid reflux is worse when lying down after a meal. People with GERD may cough at night."},
    {"focus": "Zorb fever", "synonyms": [], "qtype": "symptoms", "answer": "Ears that glow in the dark are seen in all of the patients."},
    {"focus": "GERD", "synonyms": [], "qtype": "treatment", "answer": "Tablets that lower the acid in the stomach are used."},
]  # fmt: skip


def test_reference_texts_become_passages_without_the_name(tmp_path):
    path = tmp_path / "medquad.jsonl"
    path.write_text("\n".join(map(json.dumps, MEDQUAD)), encoding="utf-8")
    knowledge = load_knowledge()
    references, mark = load_references(str(path))
    made = list(reference_exchanges(references, knowledge, Generator(knowledge), seed=1))
    assert made and mark
    assert {e.condition for e in made} == {"Gastroesophageal reflux disease"}
    text = " ".join(e.question for e in made)
    assert "burning behind the breastbone" in text and "GERD" not in text and "reflux" not in text.lower()


def test_reference_texts_of_another_layout_are_one_clear_line(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(SymptomChatError, match="other.jsonl: field 'focus' is missing"):
        load_references(str(path))
