"""From a float32 ``.tflite`` to smaller ones: one copy of each table, int8 or int4 weights.

In and out: the bytes of a LiteRT file. The quantizer leaves a ``GATHER`` in float32 and stores its table once
for each signature; an ``EMBEDDING_LOOKUP`` of the same table shares the int8 rows with the tied output. So
lookups are rewritten in the flatbuffer first.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


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


def quantize_dynamic(content: bytes, bits: int = 8, block: int = 0) -> bytes:
    """Weights as integers, activations quantized on the fly.

    Args:
        bits: 8 or 4.
        block: weights that share a scale within a row (32, 64, 128 or 256); 0 gives each row one scale.
    """
    from litert_quantizer import Quantizer, qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    options: dict[str, Any] = {}
    if block:
        options["granularity"] = qtyping.QuantGranularity[f"BLOCKWISE_{block}"]
    manager.add_dynamic_config(
        regex=".*", operation_name=qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=bits, **options
    )
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
