"""The prefix language model, its start, its smaller copies and its export."""

import keras
import numpy as np
import pytest

from symptomchat.learning.distillation import MaskedLogitsDistillation, importance, slim
from symptomchat.models.student import PrefixLM, Shape
from symptomchat.models.teacher import build_teacher, load_base, quantize_rows
from symptomchat.phone.export import export_tflite, feed_forward
from symptomchat.phone.parity import compare
from symptomchat.phone.quantization import quantize
from symptomchat.recipe import ModelPart, PruningPart

SMALL = Shape(60, 5, 32, 8, (4, 4), (48, 48), 16, 8, dropout=0.0)


@pytest.fixture(autouse=True)
def float32():
    keras.mixed_precision.set_global_policy("float32")
    keras.utils.set_random_seed(1)


def small() -> PrefixLM:
    model = PrefixLM(SMALL, name="prefix_lm")
    random = np.random.default_rng(2)
    arrays = {
        n: random.normal(0, 0.3, a.shape).astype("float32") if a.ndim > 1 else a
        for n, a in model.arrays().items()
    }
    model.load_arrays(arrays)
    return model


def batch(padding=0):
    question = np.zeros((2, 6 + padding), "int32")
    question[0, :6], question[1, :4] = [1, 5, 6, 7, 8, 2], [1, 9, 10, 2]
    answer = np.array([[61, 11, 12, 13], [62, 14, 15, 16]], "int32")
    return {"question": question, "answer": answer}


def outputs(model, inputs):
    return {name: np.asarray(value) for name, value in model(inputs, training=False).items()}


def test_the_backbone_s_states_are_kept_when_it_becomes_a_prefix_language_model():
    backbone, tokenizer = load_base()
    ids = [
        tokenizer.token_to_id("[CLS]"),
        *tokenizer.encode("my heart races", add_special_tokens=False).ids,
        tokenizer.token_to_id("[SEP]"),
    ]
    old_ids = list(range(tokenizer.get_vocab_size()))

    class Enlarged:
        def get_vocab_size(self):
            return len(old_ids) + 8

    model = build_teacher(
        backbone, Enlarged(), old_ids, 3, ModelPart(dropout=0.0, question_tokens=16, answer_tokens=8)
    )
    tokens = np.array([ids], "int32")
    states = backbone({"token_ids": tokens, "segment_ids": tokens * 0, "padding_mask": tokens * 0 + 1})[
        "sequence_output"
    ]
    mean = np.asarray(states)[0].mean(axis=0)
    answer = np.full((1, 1), model.shape_.text_vocabulary, "int32")
    summary = outputs(model, {"question": tokens, "answer": answer})["summary"][0]
    assert np.abs(summary - mean / np.linalg.norm(mean)).max() < 1e-4


def test_distilbert_s_states_are_kept_when_it_becomes_a_prefix_language_model():
    import keras_hub

    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=40, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=64, max_sequence_length=64
    )  # fmt: skip
    random = np.random.default_rng(3)
    for weight in backbone.weights:
        if len(weight.shape) > 1:
            weight.assign(random.normal(0, 0.3, weight.shape))

    class Enlarged:
        def get_vocab_size(self):
            return 48

    options = ModelPart(dropout=0.0, question_tokens=16, answer_tokens=8)
    model = build_teacher(backbone, Enlarged(), list(range(40)), 3, options)
    tokens = np.array([[2, 9, 17, 30, 3]], "int32")
    mean = np.asarray(backbone({"token_ids": tokens, "padding_mask": tokens * 0 + 1}))[0].mean(axis=0)
    answer = np.full((1, 1), model.shape_.text_vocabulary, "int32")
    summary = outputs(model, {"question": tokens, "answer": answer})["summary"][0]
    # keras-hub's DistilBERT computes GELU exactly, the student in its tanh form.
    assert np.abs(summary - mean / np.linalg.norm(mean)).max() < 3e-3


def test_padding_changes_nothing():
    model = small()
    narrow, wide = outputs(model, batch()), outputs(model, batch(padding=5))
    for name in narrow:
        assert np.abs(narrow[name] - wide[name]).max() < 1e-5


def test_the_answer_is_causal_and_the_question_bidirectional():
    model, inputs = small(), batch()
    before = outputs(model, inputs)
    changed = {**inputs, "answer": inputs["answer"].copy()}
    changed["answer"][0, 3] = 20
    after = outputs(model, changed)
    assert np.abs(after["tokens"][0, :3] - before["tokens"][0, :3]).max() < 1e-6
    assert np.abs(after["conditions"] - before["conditions"]).max() < 1e-6
    assert np.abs(after["tokens"][0, 3] - before["tokens"][0, 3]).max() > 1e-4


def test_losses_ignore_padding():
    model, inputs = small(), batch()
    y = {"condition": np.array([1, 2], "int32"), "next": np.array([[11, 12, 0, 0], [14, 0, 0, 0]], "int32")}
    found = outputs(model, inputs)
    _, token, _ = model.losses_of(y, found)
    logs = found["tokens"] - np.log(np.exp(found["tokens"]).sum(-1, keepdims=True))
    expected = -(logs[0, 0, 11] + logs[0, 1, 12] + logs[1, 0, 14]) / 3
    assert abs(float(token) - expected) < 1e-4


def test_distillation_is_zero_between_equals_and_ignores_padding():
    model, inputs = small(), batch()
    found = model(inputs, training=False)
    loss = MaskedLogitsDistillation(2.0)
    real = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], "float32")
    assert abs(float(loss.compute_loss(found, found, real=real))) < 1e-4
    other = {**found, "tokens": np.asarray(found["tokens"]).copy()}
    other["tokens"][:, 2:] += np.random.default_rng(0).normal(size=other["tokens"][:, 2:].shape)
    assert abs(float(loss.compute_loss(found, other, real=real))) < 1e-4


def test_a_slim_model_equals_the_model_with_the_rest_masked():
    model = small()
    heads, neurons = [np.array([3.0, 1, 2, 0])] * 2, [np.arange(48.0)] * 2
    student = slim(model, ModelPart(heads=2, neurons=16, dropout=0.0), heads, neurons)
    assert student.parameters() < model.parameters()
    arrays = model.arrays()
    for layer in range(2):
        arrays[f"block_{layer}/merge/kernel"][np.r_[8:16, 24:32]] = 0
        arrays[f"block_{layer}/contract/kernel"][:32] = 0
    model.load_arrays(arrays)
    a, b = outputs(model, batch()), outputs(student, batch())
    assert max(np.abs(a[n] - b[n]).max() for n in a) < 1e-4


def test_importance_finds_the_head_that_does_nothing():
    model = small()
    arrays = model.arrays()
    arrays["block_0/merge/kernel"][8:16] = 0
    model.load_arrays(arrays)
    y = {"condition": np.array([1, 2], "int32"), "next": np.full((2, 4), 9, "int32")}
    heads, neurons = importance(model, [(batch(), y)], 1)
    assert heads[0].argmin() == 1 and heads[0][1] == 0 and len(neurons[1]) == 48


def test_pruning_by_the_schedule_reaches_its_sparsity():
    from symptomchat.learning.pruning import MagnitudePruning, sparsity

    model = small()
    callback = MagnitudePruning(model, PruningPart(sparsity=0.5, begin=0.0, end=0.5), steps=10)
    callback.set_params({"steps": 10})
    callback.on_epoch_begin(0)
    levels = []
    for step in range(10):
        callback.on_train_batch_end(step)
        levels.append(sparsity(model))
    assert levels[0] < 0.2 and abs(levels[-1] - 0.5) < 0.02 and levels == sorted(levels)


def test_int8_rows_are_within_half_a_step():
    array = np.random.default_rng(0).normal(size=(5, 40)).astype("float32")
    values, scales = quantize_rows(array)
    assert np.abs(values * scales[:, None] - array).max() <= scales.max() / 2 + 1e-6


class _Grammar:
    none, end, answer_tokens = 60, 7, 8


def test_exported_files_compute_what_keras_computes(tmp_path):
    from symptomchat.learning.batches import Encoded

    model = small()
    rows = [Encoded((1, 5, 6, 7, 2), 1, ()), Encoded((1, 9, 2), 2, ())]
    full = tmp_path / "fp32.tflite"
    export_tflite(model, full, np.eye(32, dtype="float32")[:4])
    for precision, bound in (("fp32", 1e-3), ("fp16", 0.02), ("int8", 1.0), ("int4", 3.5)):
        path = tmp_path / f"{precision}.tflite"
        if path != full:
            # As a run does: converted once, and quantized from the whole file.
            path.write_bytes(quantize(full.read_bytes(), precision, feed_forward(model)))
        found = compare(model, path, rows, _Grammar())
        assert found["logits"] < bound and found["probabilities"] < bound / 5
        if precision == "fp32":
            assert found["same_tokens"] == 1.0 and found["same_first"] == 1.0


def test_a_file_of_four_bits_loads_whatever_pruning_emptied(tmp_path):
    """A block of zeros has no scale of its own; the interpreter must load the file all the same."""
    from symptomchat.learning.batches import Encoded

    model = small()
    arrays = model.arrays()
    for name in [name for name in arrays if name.endswith(("expand/kernel", "contract/kernel"))]:
        arrays[name][:32, ::2] = 0
    model.load_arrays(arrays)
    full, path = tmp_path / "fp32.tflite", tmp_path / "int4.tflite"
    export_tflite(model, full, np.eye(32, dtype="float32")[:4])
    path.write_bytes(quantize(full.read_bytes(), "int4", feed_forward(model)))
    found = compare(model, path, [Encoded((1, 5, 6, 7, 2), 1, ())], _Grammar())
    assert found["logits"] < 3.5
