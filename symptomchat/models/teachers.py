"""Any text model of keras-hub as a reader of questions: what it is, whether it fits, and its hidden states.

In: ``hf://owner/name``, a folder (keras-hub's ``save_to_preset`` or the Hugging Face layout), or the name of a
keras-hub preset. Out: a ``Card`` (architecture, parameters, tokenizer: known before any weight is read), and a
``Reader``, which turns questions into token ids and token ids into one vector each: the mean over the real
tokens for an encoder, the last real token for a causal language model.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import psutil
from keras import ops
from tokenizers import Tokenizer

from symptomchat.errors import SymptomChatError
from symptomchat.files import BASE, fingerprint, read_json, read_text
from symptomchat.models.teacher import BERT_FAMILY
from symptomchat.recipe import Recipe

Layout = Literal["keras", "hugging face", "registry"]
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model.weights.h5", "model.weights.json")
GATED = ("llama", "mistral", "mixtral", "gemma", "phi3", "qwen", "smollm", "gpt_oss", "modernbert")
"""Families whose feed-forward layers multiply by a gate: three matrices instead of two."""
TIED = ("gpt2", "gemma", "bert", "roberta", "electra", "opt", "modernbert")
"""Families whose output layer is the embedding table, so that it counts once."""
POSITIONS = ("bert", "gpt2", "roberta", "electra", "opt")
"""Families with a table of learned positions."""
ADVICE = "use base, a folder, hf://owner/name or a keras-hub preset"
NETWORK = {
    "ConnectionError", "ConnectTimeout", "ReadTimeout", "TimeoutError", "HTTPError", "TransportError", "IncompleteRead",
    "ChunkedEncodingError", "ProtocolError", "LocalEntryNotFoundError",
}  # fmt: skip
"""Names of the errors, in any library, of a transfer that failed."""
GIB = 2**30
LARGE = 1e9
"""Parameters above which a frozen model is kept in bfloat16."""


@dataclass(frozen=True)
class Card:
    """What is known of a teacher before its weights are read.

    Attributes:
        source: as the user named it.
        family: architecture in keras-hub's lower-case words, such as ``gpt2`` or ``distilbert``.
        parameters: their number, estimated from the configuration.
        config: sizes, under the names of whoever wrote the configuration.
        pieces: kind of vocabulary: ``WordPiece``, ``BPE``, ``Unigram``; empty where the file does not say.
        mark: changes when the weights do.
    """

    source: str
    family: str
    layout: Layout
    parameters: int
    config: dict[str, Any] = field(default_factory=dict)
    pieces: str = ""
    mark: str = ""

    @property
    def speaks_as_student(self) -> bool:
        """Whether its trimmed vocabulary can be the student's, so that it teaches tokens too."""
        return self.family in BERT_FAMILY and self.pieces in ("", "WordPiece")


# --- before anything is loaded -----------------------------------------------------------------------------


def inspect_source(source: str) -> Card:
    """Read a teacher's configuration, and make sure that there are weights beside it.

    Raises:
        SymptomChatError: it does not exist, cannot be reached, asks for a login, or holds no weights.
    """
    if source.startswith("hf://"):
        return _inspect_hub(source)
    folder = Path(source)
    if folder.is_dir():
        return _inspect_folder(source, folder)
    return _inspect_registry(source)


def _card(source: str, config: dict[str, Any], pieces: str, mark: str) -> Card:
    if "registered_name" in config:
        family = _family(str(config["registered_name"]).rpartition(">")[2])
        sizes = dict(config.get("config", {}))
        return Card(source, family, "keras", estimate_parameters(family, sizes), sizes, pieces, mark)
    if "model_type" not in config:
        raise SymptomChatError(f"teacher '{source}': its config.json names no model; {ADVICE}")
    family = str(config["model_type"]).lower().replace("-", "_")
    return Card(source, family, "hugging face", estimate_parameters(family, config), config, pieces, mark)


def _family(class_name: str) -> str:
    return class_name.removesuffix("Backbone").lower()


def _inspect_folder(source: str, folder: Path) -> Card:
    if not (folder / "config.json").is_file():
        raise SymptomChatError(f"teacher '{source}': has no config.json; {ADVICE}")
    weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise SymptomChatError(
            f"teacher '{source}': holds no weights (none of {', '.join(WEIGHTS)}); copy them into the folder"
        )
    shards = sorted({*weights, *folder.glob("model*.safetensors"), *folder.glob("model*.h5")})
    mark = fingerprint([read_text(folder / "config.json"), *map(_digest, shards)])
    pieces = ""
    if (folder / "tokenizer.json").is_file():
        stored = read_json(folder / "tokenizer.json")
        pieces = str(stored.get("model", {}).get("type", "")) if isinstance(stored, dict) else ""
    return _card(source, read_json(folder / "config.json"), pieces, mark)


def _digest(path: Path) -> str:
    # Weights may be larger than the memory: they are read in pieces.
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _inspect_hub(source: str) -> Card:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    name = source.removeprefix("hf://")

    def read() -> Card:
        kept = try_to_load_from_cache(name, "config.json")
        try:
            info = HfApi().model_info(name, timeout=20)
        except Exception as error:  # each version of the Hub's client has a network library of its own
            if not isinstance(kept, str) or not _names(error) & NETWORK:
                raise
            # Downloaded before, and the Hub cannot be reached now: keras-hub takes the same copy.
            snapshot = Path(kept).parent
            return replace(_inspect_folder(source, snapshot), mark=snapshot.name)
        files = {entry.rfilename for entry in info.siblings or []}
        if not files & set(WEIGHTS):
            raise SymptomChatError(
                f"teacher '{source}': holds no weights (none of {', '.join(WEIGHTS)}); take a model that has them"
            )
        config = read_json(Path(hf_hub_download(name, "config.json", revision=info.sha)))
        pieces = ""
        if "tokenizer.json" in files and "registered_name" not in config:
            stored = read_json(Path(hf_hub_download(name, "tokenizer.json", revision=info.sha)))
            pieces = str(stored.get("model", {}).get("type", ""))
        return _card(source, config, pieces, str(info.sha))

    return _explained(source, read)


def _inspect_registry(source: str) -> Card:
    import keras_hub

    if "/" in source.partition("://")[2] or source.startswith("kaggle://"):
        presets = {value["kaggle_handle"]: value for value in keras_hub.models.Backbone.presets.values()}
    else:
        presets = keras_hub.models.Backbone.presets
    found = presets.get(source)
    if found is None:
        raise SymptomChatError(
            f"teacher '{source}': is no folder and no preset that keras-hub knows; {ADVICE}"
        )
    metadata = found["metadata"]
    family = str(metadata["path"]).replace("_", "")
    return Card(source, family, "registry", int(metadata["params"]), mark=str(found["kaggle_handle"]))


def _explained(source: str, work: Callable[[], Any]) -> Any:
    """Run what asks a hub or loads weights; whatever fails becomes one line that says what to do."""
    try:
        return work()
    except SymptomChatError:
        raise
    except Exception as error:  # network, format and registry errors of five libraries
        raise SymptomChatError(f"teacher '{source}': {_reason(source, error)}") from error


def _names(error: Exception) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _reason(source: str, error: Exception) -> str:
    kinds = _names(error)
    text = " ".join(str(error).split()) or type(error).__name__
    where = "on huggingface.co" if source.startswith("hf://") else "on kaggle.com"
    login = "hf auth login" if source.startswith("hf://") else "kagglehub.login()"
    refused = any(f"{code} Client Error" in text for code in (401, 403)) or "not accessible" in text
    if "GatedRepoError" in kinds or (refused and "RepositoryNotFoundError" not in kinds):
        return f"needs a login; accept its terms {where}, log in with {login}, and run the same command again"
    if "RepositoryNotFoundError" in kinds:
        return f"does not exist, or is private; check the name, or log in with {login}"
    if isinstance(error, MemoryError) or "ResourceExhausted" in text or "OOM" in text:
        return "does not fit into the memory; use a smaller one"
    if kinds & NETWORK or "Consistency check" in text:
        return f"could not be downloaded ({text[:160]}); check the network, or give a local folder"
    if "no config.json" in text:
        return (
            f"has no config.json that can be read; log in with {login} if it asks for a login, else {ADVICE}"
        )
    return f"could not be loaded ({text[:200]}); {ADVICE}"


def _size(config: dict[str, Any], *names: str, default: float = 0) -> int:
    for name in names:
        if config.get(name) is not None:
            return int(config[name])
    return int(default)


def estimate_parameters(family: str, config: dict[str, Any]) -> int:
    """Number of parameters of a transformer, from its sizes under keras-hub's or Hugging Face's names.

    Returns:
        the number; 0 where the configuration does not give the sizes.
    """
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    pieces = _size(config, "vocabulary_size", "vocab_size")
    # DistilBERT calls the width dim and the neurons hidden_dim, which is keras-hub's word for the width.
    width = _size(config, "dim", "hidden_size", "n_embd", "hidden_dim")
    layers = _size(config, "num_layers", "num_hidden_layers", "n_layer", "n_layers")
    heads = _size(config, "num_query_heads", "num_heads", "num_attention_heads", "n_head", "n_heads")
    if not (pieces and width and layers and heads):
        return 0
    inner = _size(
        config, "intermediate_dim", "intermediate_size", "n_inner", "hidden_dim" if "dim" in config else "",
        default=4 * width,
    )  # fmt: skip
    pairs = _size(config, "num_key_value_heads", default=heads)
    size = _size(config, "head_dim", default=width // heads)
    gated = any(family.startswith(name) for name in GATED)
    if family.startswith("gemma") and "vocabulary_size" in config:
        inner //= 2
    experts = _size(config, "num_experts", "num_local_experts", default=1)
    attention = 2 * width * heads * size + 2 * width * pairs * size
    if not gated:
        attention += (heads + 2 * pairs) * size + width
    forward = (3 if gated else 2) * width * inner * max(1, experts) + (0 if gated else inner + width)
    norms = (2 if gated else 4) * width
    tied = config.get("tie_word_embeddings")
    shared = bool(tied) if tied is not None else any(name in family for name in TIED)
    total = (
        pieces * width * (1 if shared else 2)
        + layers * (attention + forward + norms)
        + (1 if gated else 2) * width
    )
    if any(name in family for name in POSITIONS):
        total += width * _size(config, "max_sequence_length", "max_position_embeddings", "n_positions")
    if family == "bert":
        total += width * (_size(config, "num_segments", "type_vocab_size", default=2) + width + 1)
    return int(total)


def available_memory() -> int:
    """Bytes that this process may still take: what is free, and what its control group still grants."""
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        granted = int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return min(free, granted)


def memory_needed(card: Card, how: str, batch: int, tokens: int, policy: str = "float32") -> int:
    """Bytes that a teacher will take, roughly: weights, optimizer, activations and the libraries.

    Args:
        how: ``head`` (frozen), ``lora`` (frozen weights, but activations are kept) or ``full``.
        policy: numeric policy of the session.
    """
    width = _size(card.config, "dim", "hidden_size", "n_embd", "hidden_dim", default=2048)
    layers = _size(card.config, "num_layers", "num_hidden_layers", "n_layer", "n_layers", default=24)
    # All weights: in float32 with their gradients and two moments.
    each = {"head": weight_bytes(card, how, policy), "lora": 4, "full": 16}[how]
    activations = batch * tokens * width * 4 * (40 if how == "head" else 26 * layers)
    return int(card.parameters * each * 1.1) + activations + GIB


def check_memory(card: Card, how: str, batch: int, tokens: int, policy: str = "float32") -> None:
    """Refuse a teacher that cannot fit, before it is downloaded or read.

    Raises:
        SymptomChatError: it needs more memory than there is.
    """
    needed, free = memory_needed(card, how, batch, tokens, policy), available_memory()
    if needed > free:
        smaller = "use a smaller one" if how == "head" else "train less of it (adapting.how=head)"
        raise SymptomChatError(
            f"teacher '{card.source}': {card.parameters / 1e6:,.1f} M parameters need about "
            f"{needed / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB are free; {smaller}"
        )


def weight_bytes(card: Card, how: str, policy: str) -> int:
    """Bytes of one loaded weight; large models that stay frozen are kept in bfloat16 where that is not slow."""
    return 2 if how == "head" and card.parameters > LARGE and policy == "mixed_bfloat16" else 4


def tokens_refused(source: str, family: str) -> SymptomChatError:
    """The line for a teacher that is asked for tokens which it does not have."""
    return SymptomChatError(
        f"teacher '{source}': {family} cuts text by a vocabulary of its own, so it cannot teach the student's tokens; "
        "set adapting.targets=conditions, or use a teacher of the BERT family with a WordPiece vocabulary"
    )


def foreign_card(recipe: Recipe) -> Card | None:
    """The card of a recipe's teacher where it teaches conditions alone; None where it becomes the student's kind.

    Everything that can be found out without reading the weights is checked here.

    Raises:
        SymptomChatError: it cannot be used, does not fit into memory, or cannot teach what is asked of it.
    """
    if recipe.teacher_init == "base" or recipe.kind != "prefix":
        return None
    card, part = inspect_source(recipe.teacher_init), recipe.adapting
    if part.targets == "tokens" and not card.speaks_as_student:
        raise tokens_refused(card.source, card.family)
    if card.speaks_as_student and part.targets != "conditions":
        check_memory(card, "full", recipe.teaching.batch, recipe.student.question_tokens)
        return None
    from symptomchat.learning.training import precision_policy

    check_memory(card, part.how, part.batch, part.tokens, precision_policy(recipe.precision))
    return card


# --- loading -----------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """A backbone with its tokenizer.

    Attributes:
        encode: questions and the most tokens → ids of each, with the marks that the model was trained with.
        causal: whether a token sees only what stands before it.
        width: size of a hidden state.
    """

    card: Card
    backbone: Any
    encode: Callable[[Sequence[str], int], list[list[int]]]
    causal: bool
    width: int

    def states(self, ids: Any, mask: Any, training: bool = False) -> Any:
        """Vectors ``[B, width]`` in float32 of ``ids [B, T]`` where ``mask [B, T]`` is 1, padded on the right."""
        wanted = self.backbone.input
        inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": ops.zeros_like(ids)}
        states = self.backbone({name: inputs[name] for name in wanted}, training=training)
        if isinstance(states, dict):
            states = states["sequence_output"]
        states = ops.cast(states, "float32")
        real = ops.cast(mask, "float32")
        if self.causal:
            last = ops.maximum(ops.sum(ops.cast(mask, "int32"), axis=1) - 1, 0)
            return ops.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
        return ops.sum(states * real[:, :, None], axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)[:, None]


def load_reader(card: Card, how: str = "head", dtype: str = "") -> Reader:
    """Load a teacher's weights and its tokenizer.

    Args:
        how: ``head``, ``lora`` or ``full``: what of it will be trained.
        dtype: policy of its layers; by default the session's, and bfloat16 for large frozen ones.

    Raises:
        SymptomChatError: it cannot be loaded, or reads something else than text alone.
    """
    if not dtype:
        policy = keras.mixed_precision.dtype_policy().name
        dtype = "bfloat16" if weight_bytes(card, how, policy) == 2 else policy
    backbone = _explained(card.source, lambda: load_weights(card, dtype))
    takes = set(backbone.input) if isinstance(backbone.input, dict) else set()
    if "token_ids" not in takes or takes - {"token_ids", "padding_mask", "segment_ids"}:
        raise SymptomChatError(
            f"teacher '{card.source}': {type(backbone).__name__} does not read text alone; use an encoder or a "
            "causal language model"
        )
    encode = _explained(card.source, lambda: _encoder(card))
    causal = is_causal(type(backbone))
    return Reader(card, backbone, encode, causal, int(backbone.hidden_dim))


def base_reader() -> Reader:
    """The pretrained start that comes with the project, as a reader: the least that any teacher must beat."""
    from symptomchat.language.tokenizer import ANSWER, USER
    from symptomchat.models.teacher import load_base

    backbone, tokenizer = load_base()
    manifest = read_json(BASE / "manifest.json")
    first, last = int(tokenizer.token_to_id(USER) or 0), int(tokenizer.token_to_id(ANSWER) or 0)

    def encode(texts: Sequence[str], tokens: int) -> list[list[int]]:
        found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[first, *one.ids[: tokens - 2], last] for one in found]

    card = Card("base", "bert", "keras", int(backbone.count_params()), manifest["backbone"], "WordPiece",
                fingerprint(manifest["files"]))  # fmt: skip
    return Reader(card, backbone, encode, False, int(backbone.hidden_dim))


def load_weights(card: Card, dtype: str) -> Any:
    """The keras-hub backbone of a source, with its weights."""
    import keras_hub

    options: dict[str, Any] = {"dtype": dtype}
    epsilon = card.config.get("rms_norm_eps")
    if card.layout == "hugging face" and epsilon is not None:
        # keras-hub's converters drop the epsilon of the norms; its backbones take it.
        try:
            return keras_hub.models.Backbone.from_preset(card.source, layer_norm_epsilon=epsilon, **options)
        except TypeError as error:
            if "layer_norm_epsilon" not in str(error):
                raise
    return keras_hub.models.Backbone.from_preset(card.source, **options)


def is_causal(backbone: type) -> bool:
    """Whether keras-hub has a causal language model on a backbone of this class."""
    import keras_hub

    tasks = [value for value in vars(keras_hub.models).values() if inspect.isclass(value)]
    return any(
        issubclass(task, keras_hub.models.CausalLM) and getattr(task, "backbone_cls", None) is backbone
        for task in tasks
    )


def _encoder(card: Card) -> Callable[[Sequence[str], int], list[list[int]]]:
    fast = fast_tokenizer(card)
    if fast is not None:
        tokenizer: Tokenizer = fast

        def encode_fast(texts: Sequence[str], tokens: int) -> list[list[int]]:
            tokenizer.no_padding()
            tokenizer.enable_truncation(tokens)
            return [list(found.ids) or [0] for found in tokenizer.encode_batch(list(texts))]

        return encode_fast
    import keras_hub

    slow = keras_hub.models.Tokenizer.from_preset(card.source)
    begin = [_mark(slow, "cls_token_id", "start_token_id")]
    # A causal model's end would be the last token, which says nothing about the question.
    end = [_mark(slow, "sep_token_id", "end_token_id")] if not is_causal(slow.backbone_cls) else []
    first, last = [i for i in begin if i is not None], [i for i in end if i is not None]

    def encode_slow(texts: Sequence[str], tokens: int) -> list[list[int]]:
        # One at a time and outside tf.data: batches there mix up special tokens.
        kept = tokens - len(first) - len(last)
        return [
            [*first, *np.asarray(slow(text)).reshape(-1)[:kept].astype(int).tolist(), *last] for text in texts
        ]

    return encode_slow


def _mark(tokenizer: Any, *names: str) -> int | None:
    for name in names:
        if getattr(tokenizer, name, None) is not None:
            return int(getattr(tokenizer, name))
    return None


def fast_tokenizer(card: Card) -> Tokenizer | None:
    """The ``tokenizer.json`` of a source in the Hugging Face layout; None where it has none."""
    if card.layout != "hugging face":
        return None
    path = Path(card.source) / "tokenizer.json"
    if card.source.startswith("hf://"):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = Path(hf_hub_download(card.source.removeprefix("hf://"), "tokenizer.json"))
        except EntryNotFoundError:
            return None
    if not path.is_file():
        return None
    text = read_text(path)
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare exceptions
        raise SymptomChatError(f"{path}: is no tokenizer ({error}); restore the file") from error


def word_pieces(card: Card) -> Tokenizer:
    """The WordPiece tokenizer of a teacher of the BERT family, whatever layout it comes in.

    Raises:
        SymptomChatError: it has none.
    """
    fast = _explained(card.source, lambda: fast_tokenizer(card))
    if fast is None:
        import keras_hub
        from tokenizers.implementations import BertWordPieceTokenizer

        preset = _explained(card.source, lambda: keras_hub.models.Tokenizer.from_preset(card.source))
        pieces = {piece: at for at, piece in enumerate(preset.get_vocabulary())}
        fast = Tokenizer.from_str(
            BertWordPieceTokenizer(vocab=pieces, lowercase=bool(preset.lowercase)).to_str()
        )
    kind = json.loads(fast.to_str())["model"]["type"]
    if kind != "WordPiece":
        raise SymptomChatError(
            f"teacher '{card.source}': cuts words as {kind}, the student as WordPiece; "
            "leave adapting.targets=conditions"
        )
    return fast
