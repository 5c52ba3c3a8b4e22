"""From a Keras prefix language model to one ``.tflite`` file with three signatures.

- ``rank``: ``tokens [1, S]``, ``length [1]`` → ``probabilities [1, C]``, ``novelty [1]``
- ``prefill``: the same inputs → the same outputs and the key–value cache of the question, ``k_i`` and ``v_i``
  of shape ``[1, heads, S, size]``
- ``decode``: ``token [1]``, ``length [1]``, ``step [1]`` and the caches of question and answer → ``logits [1, V]``
  and the row to write into the answer's cache at ``step``

The forward pass is written here once more over the model's own weights, because Keras' full pass has no
cache; tests compare the two.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.files import atomic
from symptomchat.models.student import PrefixLM
from symptomchat.phone.quantization import lookups, quantize

SIGNATURES = ("rank", "prefill", "decode")
DIRECTIONS = 40
"""Principal directions in which novelty is measured: what lies outside of them is new by itself."""


def export_tflite(model: PrefixLM, path: Path, centroids: np.ndarray, precision: str = "fp32") -> None:
    """Write the file.

    Args:
        centroids: unit vectors ``[K, hidden]`` of everything learned; ``novelty`` is one minus the highest
            cosine with them (0 = as learned, up to 2), measured in their principal directions.
        precision: one of ``quantization.PRECISIONS``.
    """
    content = quantize(lookups(converted(model, centroids)), precision, feed_forward(model))
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def converted(
    model: PrefixLM, centroids: np.ndarray, calibration: dict[str, list[dict[str, np.ndarray]]] | None = None
) -> bytes:
    """The file as TensorFlow's converter writes it.

    Args:
        calibration: real inputs by signature; with them the converter quantizes weights and activations to int8 where
            it can (its "representative dataset"), for comparison with ``quantization.quantize_static``.
    """
    import keras
    import tensorflow as tf

    shape = model.shape_
    graph = _Graph(model, centroids)
    archive = keras.export.ExportArchive()
    archive.track(graph)
    tokens = tf.TensorSpec((1, shape.question_tokens), tf.int32, "tokens")
    length = tf.TensorSpec((1,), tf.int32, "length")
    archive.add_endpoint("rank", graph.rank, [tokens, length])
    archive.add_endpoint("prefill", graph.prefill, [tokens, length])
    caches = {}
    for index, heads in enumerate(shape.heads):
        for kind in "kv":
            caches[f"{kind}_{index}"] = tf.TensorSpec(
                (1, heads, shape.question_tokens, shape.head_size), tf.float32, f"{kind}_{index}"
            )
            caches[f"{kind}a_{index}"] = tf.TensorSpec(
                (1, heads, shape.answer_tokens, shape.head_size), tf.float32, f"{kind}a_{index}"
            )
    scalars = [tf.TensorSpec((1,), tf.int32, name) for name in ("token", "length", "step")]
    archive.add_endpoint("decode", graph.decode, [*scalars, caches])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(SIGNATURES))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
            converter.representative_dataset = lambda: (
                (name, row) for name, rows in calibration.items() for row in rows
            )
        return bytes(converter.convert())


def feed_forward(model: PrefixLM) -> set[tuple[int, int]]:
    """Shapes ``(in, out)`` of the kernels that take four bits in int4: those of the feed-forward layers.

    A shape that attention has too is left out, since a file knows its kernels by their shapes alone.
    """
    shape = model.shape_
    wide = set(shape.neurons) - {heads * shape.head_size for heads in shape.heads} - {shape.hidden}
    return {(shape.hidden, n) for n in wide} | {(n, shape.hidden) for n in wide}


def principal_directions(vectors: np.ndarray, count: int) -> np.ndarray:
    """The ``[≤ count, hidden]`` orthonormal directions in which vectors ``[K, hidden]`` reach furthest."""
    return np.asarray(np.linalg.svd(vectors.astype("float32"), full_matrices=False)[2][:count], "float32")


def _module_base() -> Any:
    import keras

    return keras.layers.Layer


class _Graph(_module_base()):  # type: ignore[misc]
    """The forward pass with an explicit cache, over float32 copies of the model's weights."""

    def __init__(self, model: PrefixLM, centroids: np.ndarray) -> None:
        super().__init__(name="graph", dtype="float32")
        self.model_shape = model.shape_
        self.table: dict[str, Any] = {}
        directions = principal_directions(centroids, DIRECTIONS)
        own = {"directions": directions, "centroids": centroids @ directions.T}
        for name, array in (model.arrays() | own).items():
            weight = self.add_weight(
                shape=array.shape, name=name.replace("/", "_"), dtype="float32", trainable=False
            )
            weight.assign(array)
            self.table[name] = weight
        self.built = True

    def call(self, x: Any) -> Any:
        """A Keras layer must have one; the endpoints are the methods below."""
        return x

    def weight(self, name: str) -> Any:
        """Current value of a weight."""
        return self.table[name].value

    def dense(self, x: Any, name: str) -> Any:
        """``x @ kernel + bias``."""
        import tensorflow as tf

        return tf.linalg.matmul(x, self.weight(f"{name}/kernel")) + self.weight(f"{name}/bias")

    def norm(self, x: Any, name: str) -> Any:
        """Layer normalisation over the last axis."""
        import tensorflow as tf

        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        centred = x - mean
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        scaled = centred * tf.math.rsqrt(variance + self.model_shape.epsilon)
        return scaled * self.weight(f"{name}/gamma") + self.weight(f"{name}/beta")

    def heads(self, x: Any, tokens: int, count: int) -> Any:
        """``[tokens, heads × size]`` → ``[1, heads, tokens, size]``."""
        import tensorflow as tf

        return tf.transpose(tf.reshape(x, (1, tokens, count, self.model_shape.head_size)), (0, 2, 1, 3))

    def block(self, x: Any, index: int, tokens: int, keys: Any, values: Any, bias: Any) -> Any:
        """One block over the given keys and values; ``bias`` is added to the attention scores."""
        import tensorflow as tf

        shape, name = self.model_shape, f"block_{index}"
        query = self.heads(self.dense(x, f"{name}/query"), tokens, shape.heads[index])
        scores = tf.linalg.matmul(query, keys, transpose_b=True) / shape.head_size**0.5 + bias
        mixed = tf.transpose(tf.linalg.matmul(tf.nn.softmax(scores), values), (0, 2, 1, 3))
        mixed = tf.reshape(mixed, (tokens, shape.heads[index] * shape.head_size))
        x = self.norm(x + self.dense(mixed, f"{name}/merge"), f"{name}/attention_norm")
        wide = tf.nn.gelu(self.dense(x, f"{name}/expand"), approximate=True)
        return self.norm(x + self.dense(wide, f"{name}/contract"), f"{name}/output_norm")

    def question(self, tokens: Any, length: Any) -> tuple[Any, dict[str, Any]]:
        """States ``[S, hidden]`` of the question, and its cache."""
        import tensorflow as tf

        shape, size = self.model_shape, self.model_shape.question_tokens
        x = tf.gather(self.weight("text_embedding"), tf.reshape(tokens, (size,)))
        # A lookup that depends on an input keeps one table; a constant slice would be stored beside it.
        at = tf.minimum(tf.range(size), length + size)
        x = self.norm(x + tf.gather(self.weight("position_embedding"), at), "embedding_norm")
        hidden = tf.cast(tf.range(size) >= length, tf.float32) * -1e9
        bias = tf.reshape(hidden, (1, 1, 1, size))
        cache = {}
        for index in range(shape.layers):
            keys = self.heads(self.dense(x, f"block_{index}/key"), size, shape.heads[index])
            values = self.heads(self.dense(x, f"block_{index}/value"), size, shape.heads[index])
            cache[f"k_{index}"], cache[f"v_{index}"] = keys, values
            x = self.block(x, index, size, keys, values, bias)
        return x, cache

    def ranking(self, x: Any, length: Any) -> dict[str, Any]:
        """Probabilities of the conditions and novelty of the question."""
        import tensorflow as tf

        size = self.model_shape.question_tokens
        real = tf.cast(tf.range(size) < length, tf.float32)
        mean = tf.linalg.matmul(tf.reshape(real, (1, size)), x) / tf.cast(length, tf.float32)
        last = tf.cast(tf.equal(tf.range(size), length - 1), tf.float32)
        state = tf.linalg.matmul(tf.reshape(last, (1, size)), x)
        summary = mean + self.dense(state, "summary")
        summary = summary * tf.math.rsqrt(tf.reduce_sum(summary * summary, axis=-1, keepdims=True) + 1e-12)
        # The scale goes on the question's side: on the other it would make a second table of conditions.
        scores = tf.linalg.matmul(
            summary * self.weight("condition_scale"), self.weight("condition_embedding"), transpose_b=True
        )
        logits = scores + self.weight("condition_bias")
        seen = tf.linalg.matmul(summary, self.weight("directions"), transpose_b=True)
        near = tf.linalg.matmul(seen, self.weight("centroids"), transpose_b=True)
        return {"probabilities": tf.nn.softmax(logits), "novelty": 1.0 - tf.reduce_max(near, axis=-1)}

    def rank(self, tokens: Any, length: Any) -> dict[str, Any]:
        """Signature ``rank``."""
        x, _ = self.question(tokens, length)
        return self.ranking(x, length)

    def prefill(self, tokens: Any, length: Any) -> dict[str, Any]:
        """Signature ``prefill``."""
        x, cache = self.question(tokens, length)
        return self.ranking(x, length) | cache

    def decode(self, token: Any, length: Any, step: Any, caches: dict[str, Any]) -> dict[str, Any]:
        """Signature ``decode``: step 0 takes the condition token."""
        import tensorflow as tf

        shape = self.model_shape
        text = tf.gather(self.weight("text_embedding"), tf.minimum(token, shape.text_vocabulary - 1))
        condition = tf.gather(
            self.weight("condition_embedding"), tf.maximum(token - shape.text_vocabulary, 0)
        )
        is_text = tf.reshape(token < shape.text_vocabulary, (1, 1))
        x = tf.where(is_text, text, condition) + tf.gather(self.weight("position_embedding"), length + step)
        x = self.norm(x, "embedding_norm")
        asked = tf.cast(tf.range(shape.question_tokens) >= length, tf.float32)
        told = tf.cast(tf.range(shape.answer_tokens) > step, tf.float32)
        bias = tf.reshape(tf.concat([asked, told], axis=0) * -1e9, (1, 1, 1, shape.positions))
        here = tf.reshape(
            tf.cast(tf.equal(tf.range(shape.answer_tokens), step), tf.float32), (1, 1, shape.answer_tokens, 1)
        )
        written = {}
        for index in range(shape.layers):
            sides = []
            for kind, name in (("k", "key"), ("v", "value")):
                row = self.heads(self.dense(x, f"block_{index}/{name}"), 1, shape.heads[index])
                answer = caches[f"{kind}a_{index}"] * (1.0 - here) + row * here
                written[f"{kind}a_{index}"] = answer
                sides.append(tf.concat([caches[f"{kind}_{index}"], answer], axis=2))
            x = self.block(x, index, 1, sides[0], sides[1], bias)
        logits = tf.linalg.matmul(self.dense(x, "transform"), self.weight("text_embedding"), transpose_b=True)
        return {"logits": logits + self.weight("token_bias"), **written}
