"""The benchmarks of compression, training speed and phones, on tiny models."""

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from symptomchat.corpus.knowledge import load_knowledge
from symptomchat.evaluation.curves import best_by_size, draw_heads, draw_sizes
from symptomchat.evaluation.suites import Case
from symptomchat.files import read_json, write_json, write_jsonl, write_text
from symptomchat.models.student import PrefixLM, Shape
from symptomchat.phone import web
from symptomchat.phone.bundle import verify, write_manifest
from symptomchat.recipe import TrainingPart

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
compression, distillation, phone, training = (
    importlib.import_module(n) for n in ("compression", "distillation", "phone", "training")
)

SHIPPED = ROOT / "models" / "symptomchat"
TINY_GPT = {
    "vocabulary_size": 40, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16,
    "max_sequence_length": 16,
}  # fmt: skip


def random_arrays(shape: Shape, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.2, value.shape).astype("float32") if value.ndim > 1 else value
        for name, value in PrefixLM(shape, name="prefix_lm").arrays().items()
    }


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A hand-made run of five conditions with random weights, and one suite."""
    from symptomchat.language.tokenizer import trim
    from symptomchat.models.teacher import load_base

    folder = tmp_path_factory.mktemp("run")
    work = folder / "work"
    conditions = load_knowledge(conditions=5).conditions
    _, tokenizer = load_base()
    trimmed, _ = trim(tokenizer, {"fever", "cough", "pain"}, [c.id for c in conditions])
    write_text(work / "tokenizer.json", trimmed.to_str())
    write_json(work / "knowledge.json", {"conditions": [c.model_dump(mode="json") for c in conditions]})
    rows = [
        {
            "part": part, "question": f"{words} pain {at}", "intent": "diagnose", "condition": condition.name,
            "symptoms": ["fever"], "treatments": ["rest"], "group": f"{part}{at}", "source": "narratives",
        }
        for part in ("training", "validation", "calibration")
        for at, condition in enumerate(conditions)
        for words in ("fever", "cough")
    ]  # fmt: skip
    write_jsonl(work / "exchanges.jsonl", rows)
    text = trimmed.get_vocab_size() - len(conditions) - 1
    large = Shape(text, len(conditions) + 1, 64, 8, (8, 8), (192, 192), 96, 32)
    small = Shape(text, len(conditions) + 1, 64, 8, (4, 4), (96, 96), 96, 32)
    for name, shape, seed in (
        ("teacher", large, 1), ("student_start", small, 4), ("student", small, 2), ("pruned", small, 2)
    ):  # fmt: skip
        write_json(work / f"{name}.json", shape.to_json())
        np.savez(work / f"{name}.npz", **random_arrays(shape, seed))
    random = np.random.default_rng(3)
    write_json(
        work / "importance.json",
        {"heads": random.random((2, 8)).tolist(), "neurons": random.random((2, 192)).tolist()},
    )
    suite = [Case(f"cough and pain {at}", c.name) for at, c in enumerate(conditions)]
    run = compression.open_run(folder, "tiny")
    return compression.Bench(run, {"suite.csv": suite}, folder / "results" / "compression.json")


def test_a_row_tells_size_speed_and_quality_and_an_interrupted_benchmark_goes_on(bench, monkeypatch):
    member = compression.Member(bench, "student, pruned", "pruned")
    monkeypatch.setattr(compression, "family", lambda bench, quick: [member])
    monkeypatch.setattr(compression, "PRECISIONS", ("fp32", "int8"))
    rows = compression.run_family(bench, quick=False)
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert rows[0]["same first as fp32"] == 1.0
    assert rows[1]["bytes"] < rows[0]["bytes"] / 2
    assert rows[0]["parameters"] * 4 < rows[0]["bytes"]
    for row in rows:
        found = row["suites"]["suite.csv"]
        assert found["cases"] == 5 and found["top"]["1"] <= found["top"]["3"] <= found["top"]["5"] == 1.0
        assert found["interval"]["3"][0] <= found["top"]["3"] <= found["interval"]["3"][1]
        assert row["ms per rank"] > 0 and row["ms per token"] > 0
    stored = read_json(bench.output)
    assert [row["model"] for row in stored["family"]] == ["student, pruned"] * 2
    json.dumps(stored, allow_nan=False)
    draw_sizes(rows, ["suite.csv"], bench.output.parent / "sizes.png", ("a reference", 10**8))
    assert (bench.output.parent / "sizes.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(compression, "measure", lambda *_: pytest.fail("measured twice"))
    assert compression.run_family(bench, quick=False) == rows


def test_one_command_writes_every_table_and_keeps_what_failed(bench, monkeypatch, tmp_path, capsys):
    """Exports and timings are replaced by quick ones: what is tested is that no part is left out or lost."""
    measured = []

    def measure(bench, content, tolerant=False):
        measured.append(content)
        orders = [np.array([1, 2, 3, 4, 5])] * 5
        suites = {name: compression.quality(orders, bench.wanted[name]) for name in bench.suites}
        size = {"bytes": len(content), "gzip bytes": 9, "ms per rank": 1.0, "ms per token": 1.0}
        return {**size, "suites": suites}, [1] * 5

    def static_int8(*_):
        raise RuntimeError("cannot be converted")

    def demo_file(path):
        path.write_bytes(b"demo" * 100)
        return 82_000_000

    monkeypatch.setattr(compression, "measure", measure)
    monkeypatch.setattr(compression, "exported", lambda *_: b"file" * 4000)
    monkeypatch.setattr("symptomchat.phone.quantization.quantize", lambda content, *_: content)
    monkeypatch.setattr(compression, "static_int8", static_int8)
    monkeypatch.setattr(compression, "demo_file", demo_file)
    monkeypatch.setattr(compression, "child", lambda *_: {"not measured": "no interpreter"})
    suite = tmp_path / "suite.csv"
    write_text(suite, "text,label\n" + "".join(f"{c.text},{c.label}\n" for c in bench.suites["suite.csv"]))
    command = ["--run", str(bench.run.options.output), "--recipe", "tiny", "--suite", str(suite)]
    command += ["--output", str(tmp_path / "compression.json")]
    assert compression.main(command) == 0
    stored = read_json(tmp_path / "compression.json")
    precisions = len(compression.PRECISIONS)
    assert len(stored["family"]) == precisions * len(compression.family(bench, quick=False))
    assert len(stored["sparsity"]) == 2 * (len(compression.SPARSITIES) + 1)
    assert [row["zeros"] for row in stored["sparsity"][::2]] == pytest.approx(
        [0, 0.3, 0.5, 0.7, 0.5, 0], abs=0.001
    )
    assert stored["demo"][0]["not measured"] == "no interpreter"
    rows = read_json(tmp_path / "quantization.json")["rows"]
    assert [row["failed"] for row in rows if "failed" in row] == ["cannot be converted"] * 3
    assert {row["model"] for row in rows} == {"teacher", "student, pruned"}
    assert (tmp_path / "figures" / "compression.png").is_file()
    assert "failed" in capsys.readouterr().out
    done = len(measured)
    assert compression.main(command) == 0 and len(measured) == done


def test_the_family_reaches_from_the_teacher_to_cuts_smaller_than_the_student(bench):
    titles = [member.title for member in compression.family(bench, quick=True)]
    assert titles == ["teacher", "student, distilled", "student, pruned", "cut alone: 4 heads, 96 neurons"]
    cut = compression.family(bench, quick=True)[-1].model.shape_
    assert (cut.heads, cut.neurons) == ((4, 4), (96, 96))


def test_every_model_ranks_with_the_prior_once(bench):
    import dataclasses

    recipe = bench.run.recipe.model_copy(update={"prior_shift": 0.3})
    shifted = compression.Bench(dataclasses.replace(bench.run, recipe=recipe), {}, bench.output)
    stored = np.load(bench.run.work / "student.npz")["condition_bias"]
    for name in ("student", "pruned"):
        bias = np.asarray(shifted.model(name).condition_bias)
        assert np.allclose(bias - stored, 0.3 * bench.common, atol=1e-6)
    path = bench.run.work / "pruned.npz"
    before = path.read_bytes()
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"condition_bias": stored + 0.3 * bench.common})
    try:
        bias = np.asarray(shifted.model("pruned").condition_bias)
    finally:
        path.write_bytes(before)
    assert np.allclose(bias - stored, 0.3 * bench.common, atol=1e-6)


def test_switching_off_is_the_same_as_cutting_out(bench):
    from symptomchat.learning.distillation import slim
    from symptomchat.recipe import ModelPart

    teacher = bench.model("teacher", shifted=False)
    heads, neurons = compression.importances(bench.run)
    cut = slim(teacher, ModelPart(heads=3, neurons=50), heads, neurons)
    masked = compression.Masked(teacher, bench.questions)
    masked.keep("heads", heads, 3)
    masked.keep("neurons", neurons, 50)
    ids = bench.questions["suite.csv"]
    inputs = {
        "question": np.array(ids, "int32"),
        "answer": np.full((5, 1), teacher.shape_.text_vocabulary, "int32"),
    }
    expected = np.asarray(cut(inputs, training=False)["conditions"])
    assert np.abs(masked.logits("suite.csv") - expected).max() < 1e-4
    masked.restore()
    assert np.abs(masked.logits("suite.csv") - expected).max() > 1e-2


def test_heads_are_compared_with_chance_and_with_magnitude(bench):
    found = compression.run_heads(bench, 8, {"heads": (8, 4), "neurons": (96,)})
    seen = {(row["what"], row["way"], row["kept"]) for row in found["rows"]}
    for way in ("importance", "random", "magnitude"):
        assert {("heads", way, 8), ("heads", way, 4), ("neurons", way, 96)} <= seen
    assert sum(row["way"] == "random" and row["kept"] == 4 for row in found["rows"]) == 3
    places = list(found["questions"])
    assert places == ["own validation", "suite.csv"]
    draw_heads(found["rows"], places, found["importance"], 4, bench.output.parent / "heads.png")
    assert (bench.output.parent / "heads.png").read_bytes()[:4] == b"\x89PNG"
    assert compression.heads_table(found).row_count == 4


@pytest.mark.parametrize(("amount", "share"), [(0.0, 0.0), (0.3, 0.3), (0.7, 0.7), ("2:4", 0.5)])
def test_thinning_keeps_the_largest_weights(amount, share):
    kernel = np.random.default_rng(1).normal(size=(40, 30)).astype("float32")
    thin = compression.thinned(kernel, amount)
    assert np.mean(thin == 0) == pytest.approx(share, abs=0.001)
    assert np.all((thin == 0) | (thin == kernel))
    if amount == "2:4":
        groups = np.abs(kernel).reshape(10, 4, 30)
        kept = (thin != 0).reshape(10, 4, 30)
        assert np.all(kept.sum(axis=1) == 2)
        assert np.all(np.where(kept, groups, np.inf).min(1) >= np.where(kept, 0, groups).max(1))
    elif share:
        assert np.abs(kernel[thin == 0]).max() <= np.abs(thin[thin != 0]).min()


def test_full_integer_int8_is_measured_or_says_why_not(bench):
    member = compression.Member(bench, "student, pruned", "pruned")
    rows = compression.static_rows(bench, member)
    assert [row["precision"] for row in rows] == list(compression.STATIC)
    by_name = {row["precision"]: row for row in rows}
    products = by_name["int8 static, products alone"]
    assert "failed" not in products and products["ms per token"] > 0
    assert products["suites"]["suite.csv"]["cases"] == 5
    for row in rows:
        assert "failed" in row or row["suites"]["suite.csv"]["cases"] == 5
    # Each table once and in int8: not larger than what the dynamic ranges make, but for the scales of activations.
    assert products["bytes"] < 1.2 * member.row("int8")["bytes"]
    assert compression.table("", rows, ["suite.csv"]).row_count == 3


@pytest.fixture(scope="module")
def lab_command(bench, tmp_path_factory):
    """Two steps of four exchanges for each row, with reference texts and lay words."""
    folder = tmp_path_factory.mktemp("distillation")
    cases = bench.suites["suite.csv"]
    write_text(folder / "suite.csv", "text,label\n" + "".join(f"{c.text},{c.label}\n" for c in cases))
    answer = "It often begins with fever and a cough. Many people also have pain in the chest. It passes in a week."
    write_jsonl(
        folder / "references.jsonl",
        [
            {"focus": f"Disease {at}", "qtype": "symptoms", "answer": answer, "synonyms": []}
            for at in range(3)
        ],
    )
    write_text(folder / "lay.tsv", '?term\t?term_label\t?layperson\nx\t"Pyrexia"\t"Fever"\n')
    return [
        "--run", str(bench.run.options.output), "--recipe", "tiny", "--suite", str(folder / "suite.csv"),
        "--steps", "2", "--batch", "4", "--references", str(folder / "references.jsonl"),
        "--synonyms", str(folder / "lay.tsv"), "--output", str(folder / "distillation.json"),
    ]  # fmt: skip


def test_a_row_of_distillation_is_trained_once(lab_command, monkeypatch, capsys):
    command = [*lab_command, "--rows", "labels,features"]
    assert distillation.main(command) == 0
    rows = read_json(Path(lab_command[-1]))["rows"]
    assert [row["row"] for row in rows] == ["labels", "features"]
    assert rows[0]["tokens"] == rows[1]["tokens"] and rows[0]["validation"] != rows[1]["validation"]
    assert "against labels" in rows[1]
    monkeypatch.setattr(distillation, "measured", lambda *_: pytest.fail("trained twice"))
    assert distillation.main(command) == 0
    assert "trained before" in capsys.readouterr().out


@pytest.mark.long
def test_every_part_of_distillation_is_a_row(lab_command):
    output = Path(lab_command[-1])
    assert distillation.main(lab_command) == 0
    rows = {row["row"]: row for row in read_json(output)["rows"]}
    assert list(rows) == list(distillation.ROWS)
    trained = [row for name, row in rows.items() if name != "untrained"]
    assert {row["steps"] for row in trained} == {2} and rows["untrained"]["steps"] == 0
    # The same exchanges in every row; unlabelled questions come on top.
    labelled = {row["tokens"] for row in trained if not row["unlabelled"]}
    assert len(labelled) == 1 and rows["generated"]["tokens"] > labelled.pop()
    assert rows["unlabelled"]["unlabelled"] == ["generated", "lay words", "references"]
    losses = [row["validation"]["loss"] for row in rows.values()]
    assert len(set(losses)) == len(losses)
    for name, row in rows.items():
        found = row["suites"]["suite.csv"]
        assert len(found["places"]) == found["cases"] == 5
        assert found["top"]["3"] == pytest.approx(sum(p in "123" for p in found["places"]) / 5)
        assert ("against labels" in row) == (name != "labels")
    against = rows["tokens"]["against conditions"]["suite.csv"]["1"]
    assert against["interval"][0] <= against["difference"] <= against["interval"][1]
    assert (output.parent / "figures" / "distillation.png").read_bytes()[:4] == b"\x89PNG"


def test_a_gain_is_only_called_so_when_its_paired_interval_leaves_zero():
    def row(places):
        return {"suites": {"s": {"places": places}}}

    better = distillation.compared(row("1" * 30 + "-" * 10), row("4" * 30 + "-" * 10))["s"]
    assert better["3"]["verdict"] == "gain" and better["3"]["difference"] == 0.75
    assert better["5"] == {"difference": 0.0, "interval": [0.0, 0.0], "verdict": "within noise"}
    mixed = distillation.compared(row("1-" * 20 + "1"), row("-1" * 20 + "-"))["s"]["1"]
    assert mixed["verdict"] == "within noise" and mixed["interval"][0] < 0 < mixed["interval"][1]
    # What another order of the same batches makes as well is no gain, however narrow the interval.
    first, again, gained = row("1" * 20 + "-" * 20), row("1" * 32 + "-" * 8), row("1" * 30 + "-" * 10)
    chance = distillation.compared(again, first)
    assert distillation.compared(gained, first)["s"]["1"]["verdict"] == "gain"
    assert distillation.compared(gained, first, chance)["s"]["1"]["verdict"] == "within noise"
    # The same cases right on both sides leave no doubt, however few are right.
    assert distillation.compared(row("1--"), row("1--"))["s"]["1"]["interval"] == [0.0, 0.0]


def test_the_parts_of_the_teacher_s_word_that_are_kept_are_the_likeliest(bench):
    from symptomchat.learning.batches import Encoded
    from symptomchat.learning.targets import teach

    teacher = bench.model("teacher", shifted=False)
    rows = [
        Encoded((1, 5 + at, 9, 2), 1 + at, (teacher.shape_.text_vocabulary + 1 + at, 7, 8)) for at in range(3)
    ]
    lessons = teach(teacher, rows, 2.0, (3, 4), (0, 1), batch=2)
    x = {
        "question": np.array([rows[1].question], "int32"),
        "answer": np.array([rows[1].answer[:-1]], "int32"),
    }
    outputs = teacher(x, training=False)
    logits = np.asarray(outputs["conditions"][0]) / 2
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert lessons.condition_best[1].tolist() == np.argsort(-shares)[:3].tolist()
    assert np.abs(np.sort(shares)[::-1][:3] - lessons.condition_shares[1]).max() < 1e-3
    assert lessons.begins.tolist() == [0, 2, 4, 6] and lessons.features.shape == (3, 2, 64)
    tokens = np.asarray(outputs["tokens"][0])
    assert lessons.token_best[2:4, 0].tolist() == tokens.argmax(-1).tolist()
    taught = [Encoded(row.question, row.condition, row.answer, at) for at, row in enumerate(rows)]
    arrays = lessons.arrays(taught[1:2], ("tokens",))
    assert set(arrays) == {"token_best", "token_shares"}
    assert arrays["token_best"].shape == (1, 16, 4) and not arrays["token_shares"][0, 2:].any()


def test_the_divergence_from_the_likeliest_is_that_of_all_where_nothing_is_left():
    from symptomchat.learning.distillation import top_k_divergence

    random = np.random.default_rng(0)
    taught, logits = random.dirichlet(np.ones(6), 4), random.normal(size=(4, 6)).astype("float32")
    soft = np.exp(logits / 2) / np.exp(logits / 2).sum(-1, keepdims=True)
    whole = (taught * np.log(taught / soft)).sum(-1)
    best = np.argsort(-taught, axis=1)

    def found(k):
        shares = np.take_along_axis(taught, best, 1)[:, :k].astype("float32")
        return np.asarray(top_k_divergence(best[:, :k].astype("int32"), shares, logits, 2.0))

    assert np.abs(found(6) - whole).max() < 1e-3
    assert np.all(found(3) <= whole + 1e-4) and np.all(found(3) >= -1e-6)


def test_the_best_of_each_size_is_what_no_smaller_file_reaches():
    assert best_by_size([(1, 5), (2, 4), (2, 6), (3, 6), (4, 9)]) == [0, 2, 4]


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("compression.py", ["--run", "nowhere", "--suite", "a.csv"], "nowhere"),
        ("distillation.py", ["--run", "nowhere", "--suite", "a.csv", "--rows", "labels,magic"], "magic"),
        ("training.py", ["--run", "nowhere", "--repeats", "0"], "must be positive"),
        ("phone.py", ["--bundle", "nowhere"], "nowhere: is not a model bundle"),
        (
            "phone.py",
            ["--bundle", str(SHIPPED), "--gguf", "README.md", "--no-demo", "--no-browser", "--repeats", "1"],
            "no GGUF",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_said_in_one_line(script, arguments, words, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments, "--output", str(tmp_path / "out.json")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")


def test_the_shipped_bundle_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    output = tmp_path / "phone.json"
    command = [
        "--bundle",
        str(SHIPPED),
        "--no-demo",
        "--no-browser",
        "--repeats",
        "2",
        "--output",
        str(output),
    ]
    assert phone.main(command) == 0
    rows = read_json(output)["rows"]
    first = rows[0]
    assert first["bytes"] > first["gzip bytes"] > 0
    assert 0 < first["of it before loading MiB"] < first["peak MiB"]
    assert first["load seconds"] > 0 and first["ms per token"] > 0 and first["first answer ms"] > 0
    assert "--gguf" in rows[-1]["not measured"] and "ms per token" not in rows[-1]
    assert "not measured" in capsys.readouterr().out


def test_the_demo_s_architecture_writes_tokens_without_a_cache(tmp_path):
    path = tmp_path / "demo.tflite"
    parameters = phone.demo_file(path, TINY_GPT, tokens=16)
    # Token and position tables, one block of attention and feed-forward, three norms.
    assert parameters == 40 * 8 + 16 * 8 + (4 * 64 + 4 * 8) + (2 * 128 + 24) + 3 * 16
    found = phone.child("demo", str(path), "20")
    assert found["ms per token"] > 0 and found["peak MiB"] > 0


def test_a_file_that_cannot_be_measured_says_why(tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    assert phone.child("demo", str(broken), "1")["not measured"]
    with pytest.raises(phone.SymptomChatError, match="no GGUF"):
        phone.gguf_file(broken, tmp_path)


@pytest.fixture
def two_precisions(tmp_path):
    """The shipped bundle with a second model file; what is in it does not matter here."""
    folder = tmp_path / "bundle"
    shutil.copytree(SHIPPED, folder)
    (folder / "model.int8.tflite").write_bytes(b"another model")
    manifest = read_json(folder / "manifest.json")
    write_manifest(folder, {name: value for name, value in manifest.items() if name != "files"})
    return folder


def planned(bundle, folder, *more):
    """Rows of the plan, by title: key and measurement."""
    seen = {}
    options = {
        "bundle": bundle,
        "repeats": 2,
        "gguf": None,
        "llama_python": sys.executable,
        "demo_tokens": 16,
    }
    arguments = argparse.Namespace(**options, no_demo=True, no_browser="--no-browser" in more)
    for title, key, row in phone.plan(arguments, folder):
        seen[title] = (key, row)
    return seen


def test_every_precision_is_also_measured_in_the_browser_unless_left_out(two_precisions, tmp_path):
    titles = list(planned(two_precisions, tmp_path))
    assert titles[:4] == [
        "symptomchat int8", "symptomchat int4 (ships)",
        "symptomchat int8, in the browser", "symptomchat int4, in the browser",
    ]  # fmt: skip
    assert not any("browser" in title for title in planned(two_precisions, tmp_path, "--no-browser"))
    made = phone.of_precision(two_precisions, "int8", tmp_path / "int8")
    manifest = verify(made)
    assert manifest["precision"] == "int8" and "model.int8.tflite" in manifest["files"]
    assert [path.name for path in made.glob("*.tflite")] == ["model.int8.tflite"]
    assert verify(two_precisions)["precision"] == "int4"


def test_the_browser_is_measured_again_when_model_app_or_repeats_change(tmp_path, monkeypatch):
    model, app = tmp_path / "model.tflite", tmp_path / "app"
    model.write_bytes(b"one")
    (app / "src").mkdir(parents=True)
    (app / "src" / "page.js").write_text("1")
    monkeypatch.setattr(web, "SOURCES", app)
    first = phone.browser_key(model, "5")
    (app / "node_modules").mkdir()
    (app / "node_modules" / "library.js").write_text("what a developer installed")
    assert phone.browser_key(model, "5") == first
    keys = {first, phone.browser_key(model, "6")}
    (app / "src" / "page.js").write_text("2")
    keys.add(phone.browser_key(model, "5"))
    model.write_bytes(b"two")
    keys.add(phone.browser_key(model, "5"))
    assert len(keys) == 4


def test_where_the_browser_cannot_be_had_the_row_says_what_to_install(tmp_path, monkeypatch):
    _, row = planned(SHIPPED, tmp_path)["symptomchat int4, in the browser"]
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    reasons = []
    for missing in ("chromium", "chromedriver", "node"):
        if importlib.util.find_spec("selenium") is None:
            missing = "selenium"
        found = row()
        assert found["not measured"].startswith(f"{missing}: is not installed; install")
        assert found["bytes"] > found["gzip bytes"] and "answer ms" not in found
        reasons.append(found["not measured"])
        (tools / missing).write_text("#!/bin/sh\nexit 1\n")
        (tools / missing).chmod(0o755)
        for left in tmp_path.glob("bundle-*"):
            shutil.rmtree(left)
    assert all("\n" not in reason for reason in reasons)


def test_the_memory_of_a_whole_browser_has_a_column_of_its_own():
    row = {"model": "m", "bytes": 2**20, "whole browser's peak MiB": 900.5, "download MiB": 20.8}
    shown = phone.show([row])
    cells = {str(column.header): next(iter(column.cells)) for column in shown.columns}
    assert cells["whole browser's peak MiB"] == "900.5" and cells["download MiB"] == "20.8"
    assert cells["peak MiB"] == "" and cells["MiB"] == "1.0"


def without_browser(reason):
    # CI installs Node.js and Chromium; what is missing there must not look like success.
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.mark.long
def test_the_shipped_bundle_is_measured_in_the_browser_once(tmp_path, monkeypatch):
    output = tmp_path / "phone.json"
    command = ["--bundle", str(SHIPPED), "--no-demo", "--repeats", "2", "--output", str(output)]
    assert phone.main(command) == 0
    rows = {row["model"]: row for row in read_json(output)["rows"]}
    python, page = rows["symptomchat int4 (ships)"], rows["symptomchat int4, in the browser"]
    reason = page.get("not measured", "")
    if "is not installed" in reason or reason.startswith("npm ci"):
        without_browser(reason)
    assert not reason
    assert page["bytes"] == python["bytes"] and page["gzip bytes"] == python["gzip bytes"]
    assert 0.1 < page["load seconds"] < 120
    # An answer has a prefill and at least two tokens; the first one also warms everything up.
    assert 0.05 < 2 * page["ms per token"] < page["answer ms"] < 60_000
    assert page["first answer ms"] > page["ms per token"]
    assert python["peak MiB"] < page["whole browser's peak MiB"] and "peak MiB" not in page
    assert 0 < page["of it before loading MiB"] < page["whole browser's peak MiB"]
    # The first visit fetches the model, the WebAssembly that runs it, and the page, and nothing of it twice.
    assert page["bytes"] / 2**20 < page["download MiB"] < page["bytes"] / 2**20 + 15
    monkeypatch.setattr(phone, "browser_row", lambda *_: pytest.fail("measured twice"))
    monkeypatch.setattr(phone, "child", lambda *_, **__: pytest.fail("measured twice"))
    assert phone.main(command) == 0
    assert {row["model"]: row for row in read_json(output)["rows"]} == rows


@pytest.mark.long
def test_a_page_that_fails_is_not_measured_and_says_why(tmp_path):
    if phone.no_browser():
        without_browser(phone.no_browser())
    app = tmp_path / "app"
    try:
        web.build(SHIPPED, app)
    except phone.SymptomChatError as error:
        without_browser(str(error))
    with (app / "model" / "model.int4.tflite").open("r+b") as handle:
        handle.seek(1000)
        handle.write(b"damage")
    found = phone.child("browser", str(app), "1")
    assert list(found) == ["not measured"]
    assert found["not measured"].startswith("the page: failed (model.int4.tflite: is damaged")


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def test_pytorch_is_asked_for_in_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(training.SymptomChatError, match="pip install"):
        training.need_torch()


@needs_torch
def test_keras_and_pytorch_compute_the_same_before_they_are_timed():
    shape = Shape(60, 5, 32, 8, (4, 2), (48, 20), 16, 8)
    random = np.random.default_rng(0)
    question = random.integers(4, 60, (4, 10)).astype("int32")
    question[1, 7:] = 0
    answer = np.concatenate([random.integers(60, 65, (4, 1)), random.integers(4, 60, (4, 3))], 1)
    following = random.integers(4, 60, (4, 4)).astype("int32")
    following[2, 2:] = 0
    targets = {"condition": (answer[:, 0] - 60).astype("int32"), "next": following}
    batch = ({"question": question, "answer": answer.astype("int32")}, targets)
    arrays, part = random_arrays(shape, 4), TrainingPart(head_rate=2.0)
    found = training.compare(shape, arrays, batch, part, repeats=1, steps=1)
    assert max(found["largest differences"].values()) < 1e-4
    assert all(row["tokens per second"] > 0 for row in found["rows"])
    model = PrefixLM(shape, name="prefix_lm")
    model.load_arrays(arrays | {"summary/kernel": 3 * arrays["summary/kernel"]})
    with (
        training.TorchSide(shape, arrays, batch, part) as other,
        pytest.raises(training.SymptomChatError, match="differ"),
    ):
        training.differences(model, other, batch, part)


@needs_torch
def test_the_same_steps_lead_both_frameworks_to_the_same_loss():
    shape = Shape(60, 5, 32, 8, (4,), (48,), 16, 8, dropout=0.0)
    arrays = random_arrays(shape, 5)
    question = np.arange(4, 44).reshape(4, 10).astype("int32")
    answer = np.array([[60], [61], [62], [63]], "int32")
    targets = {"condition": np.arange(4).astype("int32"), "next": np.array([[4], [5], [6], [7]], "int32")}
    batch = ({"question": question, "answer": answer}, targets)
    part = TrainingPart(head_rate=3.0, learning_rate=1e-2, weight_decay=0.1)
    model = PrefixLM(shape, name="prefix_lm")
    model.load_arrays(arrays)
    training.keras_steps(model, batch, part)(10)
    ours = float(model.combined(batch[1], model(batch[0], training=False)))
    with training.TorchSide(shape, arrays, batch, part) as other:
        before = other.ask("loss")
        other.run(10)
        assert other.ask("loss") == pytest.approx(ours, rel=0.01)
        assert before > 1.5 * ours
