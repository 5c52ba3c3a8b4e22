"""The pretrained start: a keras-hub encoder of the BERT family, turned into a prefix language model.

In: ``base`` (the trimmed weights under ``models/base/``), a local folder, or any keras-hub preset
(``hf://owner/name``) of BERT or DistilBERT. Out: a ``keras_hub`` backbone with its tokenizer, and from them a
``PrefixLM`` whose vocabulary is trimmed to the domain. Every other architecture teaches through
``symptomchat.learning.foreign``.

``python -m symptomchat.models.teacher hf://sentence-transformers/all-MiniLM-L6-v2`` makes ``models/base/``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from tokenizers import Tokenizer

from symptomchat.corpus.knowledge import Knowledge, load_knowledge
from symptomchat.corpus.schema import Exchange
from symptomchat.errors import SymptomChatError
from symptomchat.files import BASE, ROOT, atomic, read_json, read_text, sha256, write_json, write_text
from symptomchat.language import tokenizer as vocabulary
from symptomchat.models.student import PrefixLM, Shape

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
POSITIONS = 320
BERT_EPSILON = 1e-12
BERT_FAMILY = ("bert", "distilbert")


def quantize_rows(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one scale a row: ``array ≈ values × scales[:, None]``."""
    scales = np.maximum(np.abs(array).max(axis=1), 1e-12) / 127.0
    return np.round(array / scales[:, None]).astype("int8"), scales.astype("float32")


def backbone_weights(backbone: Any) -> dict[str, np.ndarray]:
    """Weights of a ``BertBackbone`` or ``DistilBertBackbone`` under the names of ``PrefixLM``; kernels as matrices."""
    weights: dict[str, np.ndarray] = {}

    def array(value: Any) -> np.ndarray:
        return np.asarray(ops.convert_to_numpy(value), "float32")

    weights["token_embedding"] = array(backbone.token_embedding.embeddings)
    if type(backbone).__name__ == "DistilBertBackbone":
        weights["position_embedding"] = array(backbone.embeddings.position_embedding.position_embeddings)
    else:
        positions = array(backbone.get_layer("position_embedding").position_embeddings)
        # Every token of the prefix language model belongs to segment 0, so its row folds into the positions.
        weights["position_embedding"] = (
            positions + array(backbone.get_layer("segment_embedding").embeddings)[0]
        )
    norm = backbone.get_layer("embeddings_layer_norm")
    weights["embedding_norm/gamma"], weights["embedding_norm/beta"] = array(norm.gamma), array(norm.beta)
    for index in range(backbone.num_layers):
        layer = backbone.get_layer(f"transformer_layer_{index}")
        attention = layer._self_attention_layer
        hidden = backbone.hidden_dim
        prefix = f"block_{index}"
        for name in ("query", "key", "value"):
            dense = getattr(attention, f"{name}_dense")
            weights[f"{prefix}/{name}/kernel"] = array(dense.kernel).reshape(hidden, -1)
            weights[f"{prefix}/{name}/bias"] = array(dense.bias).reshape(-1)
        merge = attention.output_dense
        weights[f"{prefix}/merge/kernel"] = array(merge.kernel).reshape(-1, hidden)
        weights[f"{prefix}/merge/bias"] = array(merge.bias)
        for ours, theirs in (
            ("expand", "_feedforward_intermediate_dense"),
            ("contract", "_feedforward_output_dense"),
        ):
            dense = getattr(layer, theirs)
            weights[f"{prefix}/{ours}/kernel"], weights[f"{prefix}/{ours}/bias"] = (
                array(dense.kernel),
                array(dense.bias),
            )
        norms = (("attention_norm", "_self_attention_layer_norm"), ("output_norm", "_feedforward_layer_norm"))
        for ours, theirs in norms:
            norm = getattr(layer, theirs)
            weights[f"{prefix}/{ours}/gamma"], weights[f"{prefix}/{ours}/beta"] = (
                array(norm.gamma),
                array(norm.beta),
            )
    return weights


def load_base(folder: Path = BASE) -> tuple[Any, Tokenizer]:
    """The trimmed start that comes with the project, as a keras-hub ``BertBackbone`` and its tokenizer.

    Raises:
        SymptomChatError: a file is missing or is not the one the manifest names.
    """
    import keras_hub

    manifest = read_json(folder / "manifest.json")
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise SymptomChatError(
                f"{folder / name}: is missing or damaged; restore it with git checkout {folder}"
            )
    backbone = keras_hub.models.BertBackbone(**manifest["backbone"], dtype="float32")
    with np.load(folder / "weights.npz") as stored:
        for weight in backbone.weights:
            name = _stored_name(weight)
            values = stored[name].astype("float32")
            if f"{name}:scale" in stored:
                values = values * stored[f"{name}:scale"][:, None]
            weight.assign(values.reshape(weight.shape))
    return backbone, Tokenizer.from_str(read_text(folder / "tokenizer.json"))


def _stored_name(weight: Any) -> str:
    return str(weight.path).replace("bert_backbone/", "")


def load_backbone(init: str) -> tuple[Any, Tokenizer]:
    """A pretrained keras-hub encoder of the BERT family and its tokenizer.

    Args:
        init: ``base``, a local folder, or a keras-hub preset name such as ``hf://owner/name``.

    Raises:
        SymptomChatError: it cannot be loaded, or is not of the BERT family.
    """
    if init == "base":
        return load_base()
    from symptomchat.models.teachers import inspect_source, load_reader, word_pieces

    card = inspect_source(init)
    if card.family not in BERT_FAMILY:
        raise SymptomChatError(
            f"teacher '{init}': is of the family {card.family}; this needs an encoder of the BERT family"
        )
    tokenizer = word_pieces(card)
    return load_reader(card, dtype="float32").backbone, tokenizer


def corpus_texts(knowledge: Knowledge, exchanges: list[Exchange]) -> list[str]:
    """Every text whose pieces the trimmed vocabulary must keep."""
    texts = [e.question for e in exchanges]
    for condition in knowledge.conditions:
        texts += [
            condition.name,
            *condition.aliases,
            *(f.name for f in condition.findings),
            *condition.treatments,
        ]
    for finding in knowledge.findings.values():
        texts += [finding.name, *finding.phrasings, *finding.near_misses]
    return texts


def build_teacher(
    backbone: Any,
    tokenizer: Tokenizer,
    old_ids: list[int],
    conditions: int,
    options: Any,
    heads: tuple[int, ...] | None = None,
) -> PrefixLM:
    """A ``PrefixLM`` that starts from a backbone's weights.

    Args:
        tokenizer: the trimmed tokenizer.
        old_ids: for each kept piece its id in the backbone's vocabulary.
        conditions: number of condition tokens, ``<c:none>`` included.
        options: ``ModelPart`` of the recipe.
    """
    layers = options.layers or backbone.num_layers
    if layers > backbone.num_layers:
        raise SymptomChatError(
            f"teacher.layers={layers}: the start has only {backbone.num_layers}; ask for fewer"
        )
    size = backbone.hidden_dim // backbone.num_heads
    text = tokenizer.get_vocab_size() - conditions
    shape = Shape(
        text_vocabulary=text,
        conditions=conditions,
        hidden=backbone.hidden_dim,
        head_size=size,
        heads=heads or (backbone.num_heads,) * layers,
        neurons=(backbone.intermediate_dim,) * layers,
        question_tokens=options.question_tokens,
        answer_tokens=options.answer_tokens,
        dropout=options.dropout,
        epsilon=BERT_EPSILON,
    )
    source = backbone_weights(backbone)
    if shape.positions > len(source["position_embedding"]):
        raise SymptomChatError(
            f"teacher: {shape.positions} positions are asked for, the start has {len(source['position_embedding'])}; "
            "lower question_tokens or answer_tokens"
        )
    model = PrefixLM(shape, name="prefix_lm")
    arrays = model.arrays()
    for name in arrays:
        if name in source and name != "position_embedding":
            arrays[name] = source[name]
    kept = source["token_embedding"][old_ids]
    # The grammar's own tokens start at the mean of the vocabulary, apart from one another by a little noise.
    noise = np.random.default_rng(0).normal(0, 0.02, (text - len(kept), shape.hidden)).astype("float32")
    arrays["text_embedding"] = np.concatenate([kept, kept.mean(axis=0) + noise])
    arrays["position_embedding"] = source["position_embedding"][: shape.positions]
    model.load_arrays(arrays)
    return model


def start_conditions(
    model: PrefixLM, questions: list[list[list[int]]], counts: np.ndarray, batch: int = 64
) -> None:
    """Start each condition's token where the pretrained encoder puts the texts about it.

    Args:
        questions: for each condition token (``<c:none>`` first) the encoded texts that speak of it.
        counts: how often each is told, ``[C]``; the ranking starts from that prior.
    """
    flat = [(at, ids) for at, texts in enumerate(questions) for ids in texts]
    order = sorted(range(len(flat)), key=lambda i: len(flat[i][1]))
    sums = np.zeros((len(questions), model.shape_.hidden))
    for begin in range(0, len(order), batch):
        rows = [flat[i] for i in order[begin : begin + batch]]
        width = -(-max(len(ids) for _, ids in rows) // 16) * 16
        question = np.zeros((len(rows), width), "int32")
        for line, (_, ids) in enumerate(rows):
            question[line, : len(ids)] = ids
        answer = np.full((len(rows), 1), model.shape_.text_vocabulary, "int32")
        summary = np.asarray(model.predict_on_batch({"question": question, "answer": answer})["summary"])
        for (at, _), vector in zip(rows, summary):
            sums[at] += vector
    have = np.linalg.norm(sums, axis=1) > 0
    unit = np.zeros_like(sums)
    unit[have] = sums[have] / np.linalg.norm(sums[have], axis=1, keepdims=True)
    # What all conditions share does not rank them.
    unit[have] -= unit[have].mean(axis=0)
    norms = np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    model.condition_embedding.assign(np.where(have[:, None], unit / norms, 0).astype("float32"))
    model.condition_bias.assign(np.log((counts + 1.0) / (counts + 1.0).mean()).astype("float32"))


def start_tokens(model: PrefixLM, answers: Sequence[Sequence[int]]) -> None:
    """Start the text's bias at how often answers use each piece, so that training need not find that first.

    Args:
        answers: token ids, each beginning with its condition token.
    """
    vocabulary = model.shape_.text_vocabulary
    told = np.concatenate([np.asarray(answer[1:], "int64") for answer in answers])
    counts = np.bincount(told, minlength=vocabulary)[:vocabulary] + 0.1
    model.token_bias.assign(np.log(counts / counts.mean()).astype("float32"))


def make_base(init: str, folder: Path = BASE, common: int = 14000) -> None:
    """Write ``models/base/``: the start trimmed to the domain's vocabulary, int8 by rows, with licence and hashes."""
    from symptomchat.corpus.narratives import Generator
    from symptomchat.recipe import DataPart

    local = Path(init) / "model.safetensors"
    if local.is_file() and sha256(local) != MINILM_SHA256:
        raise SymptomChatError(
            f"{local}: is not the published all-MiniLM-L6-v2 (SHA-256 differs); download it again"
        )
    backbone, tokenizer = load_backbone(init)
    knowledge = load_knowledge()
    exchanges = list(Generator(knowledge, DataPart()).all(seed=7))
    keep = vocabulary.used_pieces(tokenizer, corpus_texts(knowledge, exchanges))
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    old = spec["model"]["vocab"]
    pieces = [
        piece
        for piece, at in sorted(old.items(), key=lambda item: item[1])
        if not piece.startswith("[unused")
        and (at < common or piece in keep or len(piece.removeprefix("##")) == 1 or piece[0] == "[")
    ]
    spec["model"]["vocab"] = {piece: at for at, piece in enumerate(pieces)}
    for row in spec["added_tokens"]:
        row["id"] = spec["model"]["vocab"][row["content"]]
    spec["post_processor"] = spec["truncation"] = spec["padding"] = None
    rows = [old[piece] for piece in pieces]
    stored: dict[str, np.ndarray] = {}
    for weight in backbone.weights:
        name, values = _stored_name(weight), np.asarray(ops.convert_to_numpy(weight), "float32")
        if name.startswith("token_embedding"):
            values = values[rows]
        elif name.startswith("position_embedding"):
            values = values[:POSITIONS]
        if values.ndim >= 2 and values.shape[0] > 2:
            flat = values.reshape(values.shape[0], -1)
            stored[name], stored[f"{name}:scale"] = quantize_rows(flat)
        else:
            stored[name] = values
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "weights.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **stored)  # type: ignore[arg-type]
    write_text(folder / "tokenizer.json", json.dumps(spec, ensure_ascii=False))
    write_text(folder / "LICENSE", read_text(ROOT / "LICENSE"))
    write_json(
        folder / "manifest.json",
        {
            "what": "sentence-transformers/all-MiniLM-L6-v2, vocabulary trimmed, int8 by rows",
            "licence": "Apache-2.0",
            "source": "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
            "source_sha256": MINILM_SHA256,
            "made_by": "python -m symptomchat.models.teacher hf://sentence-transformers/all-MiniLM-L6-v2",
            "backbone": {
                "vocabulary_size": len(pieces),
                "num_layers": backbone.num_layers,
                "num_heads": backbone.num_heads,
                "hidden_dim": backbone.hidden_dim,
                "intermediate_dim": backbone.intermediate_dim,
                "max_sequence_length": POSITIONS,
                "dropout": 0.0,
            },
            "files": {name: sha256(folder / name) for name in ("weights.npz", "tokenizer.json")},
        },
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line of ``make_base``."""
    parser = argparse.ArgumentParser(
        description="make models/base/ from a pretrained encoder of the BERT family"
    )
    parser.add_argument("preset", help="hf://owner/name or a folder in the Hugging Face layout")
    parsed = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    make_base(parsed.preset)


if __name__ == "__main__":
    main()
