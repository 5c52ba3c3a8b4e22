"""From a float32 ``.tflite`` to smaller ones: one copy of each table, float16, int8 or int4 weights.

In and out: the bytes of a LiteRT file; int8 with calibrated activations also takes real inputs of each signature. The quantizer leaves a ``GATHER`` in float32 and stores its table once
for each signature; an ``EMBEDDING_LOOKUP`` of the same table shares the int8 rows with the tied output. So
lookups are rewritten in the flatbuffer first.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from symptomchat.phone.bundle import PRECISIONS


def lookups(content: bytes) -> bytes:
    """Turn each ``GATHER`` of rows of a constant table into an ``EMBEDDING_LOOKUP``; the results are the same."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    codes = [code.builtinCode for code in model.operatorCodes]
    lookup = schema.BuiltinOperator.EMBEDDING_LOOKUP
    if lookup not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = lookup
        code.version = 1
        model.operatorCodes.append(code)
        codes.append(lookup)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if codes[operator.opcodeIndex] != schema.BuiltinOperator.GATHER:
                continue
            table, rows = (int(at) for at in operator.inputs[:2])
            constant = model.buffers[graph.tensors[table].buffer].data is not None
            options = operator.builtinOptions
            if constant and len(graph.tensors[rows].shape) == 1 and options.axis == options.batchDims == 0:
                operator.opcodeIndex = codes.index(lookup)
                operator.inputs = np.array([rows, table], "int32")
                operator.builtinOptions, operator.builtinOptionsType = None, 0
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


BLOCK = 32
"""Weights of a row that share a scale in int4."""


def quantize(content: bytes, precision: str, four_bits: Collection[tuple[int, int]] = ()) -> bytes:
    """A float32 file in another of the ``PRECISIONS``.

    ``fp16`` keeps the weights in half precision and computes in float32. ``int8`` has a scale for each row, and
    activations are quantized on the fly. ``int4`` is the same but for the kernels of the shapes ``four_bits``
    (in, out), which take four bits with a scale for each ``BLOCK`` weights: the feed-forward layers'.
    Attention and the tables of tokens and conditions stay int8, because they suffer (``docs/experiments.md``).
    """
    from litert_quantizer import qtyping, recipe_manager
    from litert_quantizer.algorithm_manager import AlgorithmName

    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision}: is none of {', '.join(PRECISIONS)}")
    operations = qtyping.TFLOperationName
    manager = recipe_manager.RecipeManager()
    if precision == "fp32":
        return content
    if precision == "fp16":
        manager.add_weight_only_config(
            regex=".*",
            operation_name=operations.ALL_SUPPORTED,
            num_bits=16,
            algorithm_key=AlgorithmName.FLOAT_CASTING,
        )
        return _quantized(content, manager)
    manager.add_dynamic_config(regex=".*", operation_name=operations.ALL_SUPPORTED, num_bits=8)
    names = products_of(content, four_bits) if precision == "int4" else []
    if names:
        content = without_zero_blocks(content, names)
        manager.add_dynamic_config(
            regex="^(" + "|".join(map(re.escape, names)) + ");?$",
            operation_name=operations.FULLY_CONNECTED,
            num_bits=4,
            granularity=qtyping.QuantGranularity[f"BLOCKWISE_{BLOCK}"],
        )
    return _quantized(content, manager)


STATIC_PARTS = ("products", "all")
"""What ``quantize_static`` can put into integers."""


def quantize_static(
    content: bytes, inputs: dict[str, list[dict[str, np.ndarray]]], part: str = "products"
) -> bytes:
    """A float32 file in int8 with fixed ranges of the activations, measured on real inputs.

    The quantizer knows no static lookup: one is left in float32, with its table once for each signature, unless its
    rows are quantized as the dynamic int8 does. It is measured in ``benchmarks/compression.py`` and does not ship.

    Args:
        inputs: by signature, the named inputs of each call.
        part: ``products`` for the products with constant kernels alone, between floats; ``all`` for every operation
            that has an integer form. Inputs and outputs of the file stay float32.
    """
    from litert_quantizer import Quantizer, qtyping
    from litert_quantizer.algorithm_manager import AlgorithmName

    if part not in STATIC_PARTS:
        raise ValueError(f"static int8 of {part}: is none of {', '.join(STATIC_PARTS)}")
    operations = qtyping.TFLOperationName
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.tflite"
        path.write_bytes(content)
        quantizer = Quantizer(str(path))
        quantizer.add_static_config(
            regex=".*",
            operation_name=operations.FULLY_CONNECTED if part == "products" else operations.ALL_SUPPORTED,
            activation_num_bits=8,
            weight_num_bits=8,
        )
        quantizer.add_dynamic_config(regex=".*", operation_name=operations.EMBEDDING_LOOKUP, num_bits=8)
        if part == "all":
            for side in (operations.INPUT, operations.OUTPUT):
                quantizer.update_quantization_recipe(
                    regex=".*", operation_name=side, algorithm_key=AlgorithmName.NO_QUANTIZE
                )
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            ranges = quantizer.calibrate(inputs, num_threads=1)
            return shared(bytes(quantizer.quantize(ranges).quantized_model))


def products_of(content: bytes, shapes: Collection[tuple[int, int]]) -> list[str]:
    """Names of the products with constant kernels of given shapes ``(in, out)``, where a row can be cut into blocks.

    Shapes and not values, because the converter multiplies a kernel by the scale of the norm before it.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    found = set()
    for name, weight in _products(model):
        rows, columns = (int(size) for size in weight.shape)
        constant = model.buffers[weight.buffer].data is not None
        if constant and (columns, rows) in shapes and columns % BLOCK == 0:
            found.add(name)
    return sorted(found)


def _products(model: Any) -> Iterator[tuple[str, Any]]:
    """Name of the output, and the tensor of the weights ``[out, in]``, of each fully connected operation."""
    from tensorflow.lite.python import schema_py_generated as schema

    codes = [code.builtinCode for code in model.operatorCodes]
    for graph in model.subgraphs:
        for operator in graph.operators:
            if codes[operator.opcodeIndex] == schema.BuiltinOperator.FULLY_CONNECTED:
                yield graph.tensors[operator.outputs[0]].name.decode(), graph.tensors[operator.inputs[1]]


LEAST = 5e-4
"""What stands for a block of zeros: its scale, a seventh of that, is the least that half precision holds in full."""


def without_zero_blocks(content: bytes, names: Collection[str]) -> bytes:
    """Give each all-zero block of the named products one weight of ``LEAST``.

    Pruning may leave a block without a weight; its scale would be zero, and no interpreter loads such a file.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for at in {weight.buffer for name, weight in _products(model) if name in names}:
        blocks = np.frombuffer(bytes(model.buffers[at].data), "<f4").reshape(-1, BLOCK).copy()
        blocks[~blocks.any(axis=1), 0] = LEAST
        model.buffers[at].data = np.frombuffer(blocks.tobytes(), "uint8")
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _quantized(content: bytes, manager: Any) -> bytes:
    from litert_quantizer import Quantizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.tflite"
        path.write_bytes(content)
        quantizer = Quantizer(str(path))
        quantizer.load_quantization_recipe(manager.get_quantization_recipe())
        # Its progress bars say nothing to a user of this project.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            result = quantizer.quantize()
    return shared(bytes(result.quantized_model))


def shared(content: bytes) -> bytes:
    """Store equal vectors once.

    The quantizer writes the scales and zero points of a weight again for each signature that uses it, and equal
    tables as two buffers; in a flatbuffer any number of places may point to one vector.
    """
    import flatbuffers
    from tensorflow.lite.tools import flatbuffer_utils

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        """Gives the place of an equal vector that was written before."""

        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.known: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Any) -> int:
            """As the base class's, whose name it must bear."""
            key = (str(x.dtype), x.tobytes())
            if key not in self.known:
                self.known[key] = super().CreateNumpyVector(x)
            return self.known[key]

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    builder = Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
