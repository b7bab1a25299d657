"""Store weights as float16 for float32 arithmetic: half the file size, and the same graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmkla.imports import require

if TYPE_CHECKING:
    import onnx
    from torch import nn

SMALLEST = 256
"""Fewest values of an initializer that is stored as float16: a shorter one is not worth a Cast."""


def round_to_half(model: nn.Module) -> None:
    """Round weights to values that float16 can represent, in place; they stay float32 tensors.

    Tensors that ``model.half()`` keeps in float32 (A_log, D and delta_bias of the scan, by which the
    recurrence multiplies thousands of times) do not change.
    """
    torch = require("torch", extra="export", purpose="vmkla export")
    from vmkla.models.layers import Float32Island

    kept = {
        id(getattr(module, name))
        for module in model.modules()
        if isinstance(module, Float32Island)
        for name in module.float32_names
    }
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) not in kept:
                parameter.copy_(parameter.half().float())


def store_half(model: onnx.ModelProto) -> int:
    """Store float32 initializers as float16 with a Cast behind each, where float16 represents them exactly.

    Nothing is rounded: a tensor with a value that float16 cannot represent stays float32. ONNX Runtime folds
    the Casts when it loads the file.

    Args:
        model: the graph, which is changed in place.
    Returns:
        Number of initializers that were stored as float16.
    """
    onnx = require("onnx", extra="export", purpose="vmkla export")
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < SMALLEST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(
            onnx.helper.make_node(
                "Cast", [f"{name}.half"], [name], name=f"{name}/Cast", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(casts)
