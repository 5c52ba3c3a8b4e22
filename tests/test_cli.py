"""The commands: what is printed, what is written, and how bad input ends."""

import json
import os
from dataclasses import replace

import pytest

from symptomchat.cli import main
from symptomchat.evaluation import pairs, trust
from symptomchat.recipe import load_recipe, recipe_names
from tests.conftest import run_command


def test_ask_prints_a_readable_answer(bundle, capsys):
    assert main(["ask", "--model", str(bundle), "sore throat and runny nose"]) == 0
    text = capsys.readouterr().out
    assert "confidence" in text and "%" in text and "not a diagnosis" in text


def test_bulk_keeps_the_order_and_the_ids(bundle, tmp_path):
    questions = [
        {"id": f"q{i}", "text": text}
        for i, text in enumerate(("cough", "what is asthma?", "日本語", "crushing chest pain"))
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    assert (
        main(
            [
                "ask",
                "--model",
                str(bundle),
                "--input",
                str(tmp_path / "q.jsonl"),
                "--output",
                str(tmp_path / "a.jsonl"),
            ]
        )
        == 0
    )
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [a["id"] for a in answers] == ["q0", "q1", "q2", "q3"]


def test_one_bad_line_names_itself_and_writes_nothing(bundle, tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text('{"id": 1, "text": "cough"}\n{"id": 2, "text": ""}\n')
    target = tmp_path / "a.jsonl"
    assert (
        main(["ask", "--model", str(bundle), "--input", str(tmp_path / "q.jsonl"), "--output", str(target)])
        == 2
    )
    error = capsys.readouterr().err
    assert "line 2" in error and "empty" in error and error.count("\n") == 1 and not target.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask"], "either a question or --input"),
        (["ask", "--model", "nowhere", "cough"], "not a model bundle"),
        (["ask", ""], "empty"),
        (["ask", "--input", "missing.jsonl", "--output", "x"], "cannot be read"),
        (["train", "--recipe", "nothing"], "unknown"),
        (["train", "--set", "student.layers"], "key=value"),
        (["train", "--set", "student.wings=2"], "student.wings"),
        (["train", "--data", "missing.csv"], "not a file"),
        (["train", "--columns", "x=y"], "is not one of"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, bundle, capsys):
    if "--input" in arguments:
        arguments = [*arguments, "--model", str(bundle)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("error: ")


@pytest.mark.skipif(os.name != "posix", reason="needs a file where a folder should be")
def test_an_unwritable_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert (
        main(
            [
                "train",
                "--recipe",
                "tiny",
                "--offline",
                "--output",
                str(tmp_path / "file" / "run"),
                "--report",
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "cannot be made" in capsys.readouterr().err


def test_recipes_are_frozen_typed_and_changed_by_set():
    assert {"talk", "tiny", "laptop", "full"} <= set(recipe_names())
    recipe = load_recipe("laptop", ["student.layers=4", "data.hub="])
    assert recipe.student.layers == 4 and recipe.data.hub == ""
    with pytest.raises(Exception, match="frozen"):
        recipe.student.layers = 5


def test_evaluate_reads_both_kinds_of_suites(bundle, tmp_path, capsys):
    (tmp_path / "s.csv").write_text("label,text\ncold,runny nose and sneezing\nunknown thing,glowing\n")
    vignette = {
        "correct_diagnosis": "Common cold",
        "demographics": "30 year old Female",
        "presentation": "Sneezing.",
        "absent_findings": "No fever",
    }
    (tmp_path / "v.jsonl").write_text(json.dumps(vignette))
    out = tmp_path / "out.json"
    arguments = [
        "evaluate",
        "--model",
        str(bundle),
        "--suite",
        str(tmp_path / "s.csv"),
        "--suite",
        str(tmp_path / "v.jsonl"),
        "--output",
        str(out),
    ]
    assert main(arguments) == 0
    rows = json.loads(out.read_text())
    assert [r["cases"] for r in rows] == [2, 1] and all(0 <= r["top-1"] <= r["top-3"] <= 1 for r in rows)


def test_the_run_leaves_a_verified_bundle_and_a_whole_report(tiny):
    manifest = json.loads((tiny / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["seed"] and manifest["sources"][0]["fingerprint"] and manifest["versions"]["tensorflow"]
    stages = [row["stage"] for row in manifest["table"]]
    assert stages[0] == "teacher" and stages[-1] == ".tflite int4"
    assert manifest["table"][1]["parameters"] < manifest["table"][0]["parameters"]
    pruned, distilled = manifest["table"][3], manifest["table"][2]
    assert pruned["gzip bytes"] < distilled["gzip bytes"]
    assert manifest["parity"]["fp32"]["logits"] <= 1e-3 and manifest["parity"]["fp32"]["same_tokens"] == 1.0
    page = (tiny / "report" / "index.html").read_text(encoding="utf-8")
    assert "data:image/png" in page and "Offline" in page and 'src="http' not in page
    for name in ("curves.png", "stages.csv", "confusions.csv", "teacher.csv"):
        assert (tiny / "report" / name).stat().st_size > 20


def test_a_second_run_does_nothing_again(tiny):
    before = (tiny / "bundle" / "model.int8.tflite").stat().st_mtime_ns
    done = run_command(
        "train.py",
        "--recipe",
        "tiny",
        "--offline",
        "--output",
        str(tiny / "bundle"),
        "--report",
        str(tiny / "report"),
    )
    assert done.returncode == 0 and "done before" in done.stdout
    assert (tiny / "bundle" / "model.int8.tflite").stat().st_mtime_ns == before


def test_a_shipped_copy_answers_the_same_without_the_float32_file(bundle, tmp_path, capsys):
    assert main(["ship", str(bundle), "--output", str(tmp_path / "phone")]) == 0
    assert not (tmp_path / "phone" / "model.fp32.tflite").exists()
    assert "model.int8.tflite" in (tmp_path / "phone" / "README.md").read_text(encoding="utf-8")
    replies = []
    for folder in (bundle, tmp_path / "phone"):
        capsys.readouterr()
        assert main(["ask", "--json", "--model", str(folder), "runny nose and sneezing"]) == 0
        replies.append(json.loads(capsys.readouterr().out))
    assert replies[0]["conditions"] == replies[1]["conditions"]
    assert main(["ship", str(bundle), "--output", str(bundle)]) == 2
    assert "is the bundle itself" in capsys.readouterr().err


def test_a_bundle_in_one_file_answers_the_same(bundle, tmp_path, capsys):
    archive, again = tmp_path / "phone.zip", tmp_path / "again.zip"
    for target in (archive, again):
        assert main(["ship", str(bundle), "--output", str(target)]) == 0
    assert archive.read_bytes() == again.read_bytes()
    replies = []
    for model in (bundle, archive):
        capsys.readouterr()
        assert main(["ask", "--json", "--model", str(model), "runny nose and sneezing"]) == 0
        replies.append({**json.loads(capsys.readouterr().out), "milliseconds": 0})
    assert replies[0] == replies[1]
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.zip").write_bytes(content)
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 3])
    for name in ("damaged.zip", "cut.zip", "none.zip"):
        assert main(["ask", "--model", str(tmp_path / name), "runny nose"]) == 2
        error = capsys.readouterr().err
        assert name in error and error.count("\n") == 1


def test_intervals_hold_the_figure_and_narrow_with_more_cases():
    from symptomchat.evaluation.suites import bootstrap_interval

    few, many = [True, False] * 10, [True, False] * 500
    for hits in (few, many):
        low, high = bootstrap_interval(hits)
        assert low < 0.5 < high
    assert bootstrap_interval(many)[1] - bootstrap_interval(many)[0] < 0.1
    assert bootstrap_interval([True, True]) == (1.0, 1.0)


def only_some(monkeypatch, step):
    """Let trust measure every so-manieth text; each of its figures has a test of its own over all texts."""
    if step == 1:
        return

    def thinned(load):
        return lambda: load()[::step]

    def some_knowledge(load=trust.load_knowledge, **options):
        found = load(**options)
        few = {"red_flags": found.red_flags[::step], "out_of_scope": found.out_of_scope[::step]}
        if not options:
            # The questions that a bundle has not seen are drawn from all texts of its conditions.
            few["presentations"] = found.presentations[:: 10 * step]
        return replace(found, **few)

    for name in ("load_pairs", "load_fresh", "load_blind"):
        monkeypatch.setattr(pairs, name, thinned(getattr(pairs, name)))
    monkeypatch.setattr(trust, "load_knowledge", some_knowledge)
    monkeypatch.setattr(trust, "INVENTED", trust.INVENTED // step)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
def test_trust_measures_what_the_flags_catch(step, bundle, tmp_path, capsys, monkeypatch):
    only_some(monkeypatch, step)
    (tmp_path / "s.csv").write_text(
        "label,text\nCommon cold,runny nose and sneezing\nunknown thing,glowing\n"
    )
    out = tmp_path / "trust.json"
    arguments = [
        "trust",
        "--sampled",
        "0",
        "--model",
        str(bundle),
        "--suite",
        str(tmp_path / "s.csv"),
        "--output",
        str(out),
    ]
    assert main(arguments) == 0
    found = json.loads(out.read_text())
    assert "AUROC" in capsys.readouterr().out
    assert [row["kind"] for row in found["labelled"]] == ["own, unseen", "s.csv"]
    flagged = {row["kind"]: row["flagged"] for row in found["unanswerable"]}
    assert len(flagged) >= 4 and flagged["invented diseases"] >= 0.9
    assert found["red flags"]["recall"] >= 0.99 and found["red flags"]["fired on negatives"] == 0
    assert 0 <= found["triage"]["never less urgent"] <= 1
