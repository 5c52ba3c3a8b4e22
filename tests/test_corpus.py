"""Sources, cleaning, split and generator."""

import pandas as pd
import pytest

from symptomchat.corpus.knowledge import load_knowledge, merge
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
