"""The demo of the talk, reproduced: a GPT-2 style causal language model of keras-hub on the 400-row set.

In: records. Out: loss curves over eight cycles, and what the model says about conditions that it never saw,
checked against their records. The demo split 0.8, used batches of 8 and averaged its loss over padding; here
losses are averaged over real tokens, so they are higher than the talk's at the same quality.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from symptomchat.corpus.schema import Condition
from symptomchat.corpus.split import split_by_group
from symptomchat.errors import SymptomChatError
from symptomchat.files import read_json, read_text, write_json, write_text
from symptomchat.pipeline import Stages, corpus_stage, report_stage, write_csv
from symptomchat.recipe import TalkPart
from symptomchat.runtime.grounding import supported

if TYPE_CHECKING:
    from symptomchat.pipeline import Run

END = "<|endoftext|>"
console = Console()


def line(condition: Condition, symptoms: bool = True) -> str:
    """The training text of a condition, as the demo wrote it: name, then symptoms."""
    told = ", ".join(f.name for f in condition.findings) if symptoms else ""
    return f"{condition.name} | {told}".rstrip() + (END if symptoms else "")


class TalkLM(keras.Model):
    """A keras-hub GPT-2 backbone with the tied head; the loss skips padding."""

    def __init__(self, backbone: Any, **options: Any) -> None:
        super().__init__(**options)
        self.backbone = backbone
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Logits ``[batch, tokens, V]``."""
        hidden = self.backbone(inputs, training=training)
        return ops.cast(self.backbone.token_embedding(hidden, reverse=True), "float32")

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Mean cross-entropy over real tokens."""
        real = ops.cast(x["padding_mask"], "float32")
        each = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        return ops.sum(each * real) / ops.maximum(ops.sum(real), 1.0)


class Lines(keras.utils.PyDataset):
    """Padded batches of lines, shuffled by (seed, epoch)."""

    def __init__(self, rows: list[list[int]], batch: int, tokens: int, seed: int | None = None) -> None:
        super().__init__()
        self.rows, self.batch, self.tokens, self.seed = (
            [row[: tokens + 1] for row in rows],
            batch,
            tokens,
            seed,
        )
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Shuffle for an epoch."""
        self.order = list(range(len(self.rows)))
        if self.seed is not None:
            random.Random(f"{self.seed}|{epoch}").shuffle(self.order)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rows = [self.rows[i] for i in self.order[index * self.batch : (index + 1) * self.batch]]
        ids, following = (
            np.zeros((len(rows), self.tokens), "int32"),
            np.zeros((len(rows), self.tokens), "int32"),
        )
        mask = np.zeros((len(rows), self.tokens), "int32")
        for at, row in enumerate(rows):
            n = len(row) - 1
            ids[at, :n], following[at, :n], mask[at, :n] = row[:-1], row[1:], 1
        return {"token_ids": ids, "padding_mask": mask}, following


def train_tokenizer(texts: list[str], size: int = 5000) -> Tokenizer:
    """A byte-level BPE vocabulary of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def start(part: TalkPart, init: str, texts: list[str]) -> tuple[Any, Tokenizer]:
    """Backbone and tokenizer: from a preset (``hf://distilbert/distilgpt2``) or from random weights."""
    import keras_hub

    if not init:
        tokenizer = train_tokenizer(texts)
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=tokenizer.get_vocab_size(), num_layers=part.layers, num_heads=part.heads, hidden_dim=part.hidden,
            intermediate_dim=4 * part.hidden, dropout=0.1, max_sequence_length=max(part.tokens, 64),
        )  # fmt: skip
        return backbone, tokenizer
    try:
        backbone = keras_hub.models.Backbone.from_preset(init)
        if Path(init).is_dir():
            text = read_text(Path(init) / "tokenizer.json")
        else:
            from huggingface_hub import hf_hub_download

            text = read_text(Path(hf_hub_download(init.removeprefix("hf://"), "tokenizer.json")))
    except SymptomChatError:
        raise
    except Exception as error:  # network, format and registry errors of several libraries
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise SymptomChatError(
            f"--init {init}: could not be loaded ({reason}); leave it out to start from random weights"
        ) from error
    return backbone, Tokenizer.from_str(text)


def training_stage(run: Run) -> None:
    """Train as the talk did: split 0.8 by condition, batches of 8, eight cycles."""
    from symptomchat.learning.training import fit

    recipe = run.recipe
    keras.utils.set_random_seed(recipe.seed)
    conditions = [c for c in run.corpus.knowledge.conditions if c.findings]
    seen, unseen = split_by_group(conditions, lambda c: c.name, recipe.data.train_share, recipe.seed)
    backbone, tokenizer = start(recipe.talk, run.options.init or recipe.talk.init, [line(c) for c in seen])
    model = TalkLM(backbone, name="talk")
    rows = [[tokenizer.encode(line(c)).ids for c in part] for part in (seen, unseen)]
    tokens = recipe.talk.tokens
    history = fit(
        model, Lines(rows[0], recipe.teaching.batch, tokens, recipe.seed), Lines(rows[1], recipe.teaching.batch, tokens),  # type: ignore[arg-type]
        recipe.teaching, run.work / "talk_state.npz", "the talk's demo",
        last=True,
    )  # fmt: skip
    console.print(
        f"training loss {history.rows[0]['training loss']:.3f} → {history.rows[-1]['training loss']:.3f}, "
        f"validation loss {history.rows[-1]['validation loss']:.3f}"
    )
    write_text(run.work / "tokenizer.json", tokenizer.to_str())
    model.save_weights(run.work / "talk.weights.h5")
    sample(run, model, tokenizer, seen, unseen)


def sample(
    run: Run,
    model: TalkLM,
    tokenizer: Tokenizer,
    seen: list[Condition],
    unseen: list[Condition],
    each: int = 12,
) -> None:
    """Ask about conditions that were seen and not seen, and check every generated symptom."""
    rows: list[dict[str, Any]] = []
    chooser = random.Random(run.recipe.seed)
    for kind, conditions in (("seen", seen), ("never seen", unseen)):
        for condition in chooser.sample(conditions, min(each, len(conditions))):
            claims = [
                part.strip()
                for part in generate(
                    model, tokenizer, line(condition, symptoms=False), run.recipe.talk.tokens
                ).split(",")
            ]
            claims = [claim for claim in claims if claim]
            records = [f.name for f in condition.findings]
            right = sum(supported(claim, records) is not None for claim in claims)
            rows.append(
                {
                    "condition": condition.name,
                    "kind": kind,
                    "claims": len(claims),
                    "supported": right,
                    "answer": ", ".join(claims),
                }
            )
    write_csv(run.work / "samples.csv", rows, ("condition", "kind", "claims", "supported", "answer"))
    summary = {}
    for kind in ("seen", "never seen"):
        part = [row for row in rows if row["kind"] == kind]
        summary[kind] = sum(r["supported"] for r in part) / max(1, sum(r["claims"] for r in part))
        console.print(f"claims supported by the record, conditions {kind}: {summary[kind]:.0%}")
    write_json(run.work / "samples.json", summary)


def generate(model: TalkLM, tokenizer: Tokenizer, prompt: str, tokens: int) -> str:
    """Greedy continuation of a prompt."""
    ids = tokenizer.encode(prompt).ids[: tokens - 1]
    begin, end = len(ids), tokenizer.token_to_id(END)
    while len(ids) < tokens:
        padded, mask = np.zeros((1, tokens), "int32"), np.zeros((1, tokens), "int32")
        padded[0, : len(ids)], mask[0, : len(ids)] = ids, 1
        logits = model.predict_on_batch({"token_ids": padded, "padding_mask": mask})
        token = int(logits[0, len(ids) - 1].argmax())
        if token == end:
            break
        ids.append(token)
    return str(tokenizer.decode(ids[begin:]))


def manifest_stage(run: Run) -> None:
    """Record what the run used."""
    write_json(
        run.options.output / "run.json",
        {
            "recipe": run.recipe.model_dump(mode="json"),
            "sources": read_json(run.work / "sources.json"),
            "samples": read_json(run.work / "samples.json"),
        },
    )


STAGES: Stages = (
    ("corpus", corpus_stage),
    ("train", training_stage),
    ("manifest", manifest_stage),
    ("report", report_stage),
)
