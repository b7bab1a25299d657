"""Which multiplications of a graph are quantized; their names are the same in a float32 and a half file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from vmkla.imports import require

if TYPE_CHECKING:
    import onnx

Target = Literal["cpu", "cpu-vnni", "tensorrt"]
TARGETS: tuple[Target, ...] = ("cpu", "cpu-vnni", "tensorrt")

WEIGHT_LEVELS: dict[Target, int] = {"cpu": 64, "cpu-vnni": 127, "tensorrt": 127}
"""Largest integer of a weight. Without VNNI an x86-64 CPU adds pairs of products in 16 bits, and ONNX Runtime
makes activations unsigned there: 255 x 64 x 2 = 32640 fits, 255 x 65 x 2 = 33150 would saturate."""
KINDS: dict[Target, tuple[str, ...]] = {
    "cpu": ("MatMul",),
    "cpu-vnni": ("MatMul",),
    "tensorrt": ("MatMul", "Gemm", "Conv"),
}
"""ONNX Runtime multiplies integers in a convolution or a Gemm only when its bias is quantized as well, which
TensorRT refuses. Without that it would dequantize and compute in float32, slower than before."""

MIN_ROWS = 16
"""Of a product, for each frame. Below that (the channel attention has one) quantizing costs what it saves."""
MIN_CHANNELS = 16
"""Results of a convolution; integer kernels work on 16 and more at once."""
MIN_INPUTS: dict[Target, int] = {"cpu": 64, "cpu-vnni": 64, "tensorrt": 16}
"""Values that are summed up in a product. On a CPU fewer are over before their quantization is paid for."""

_GROUPS = tuple(
    re.compile(pattern) for pattern in (r".*\.query_key(?=\.|$)", r".*?\.blocks\.\d+", r".*\.(down|up)sample")
)
"""Node names to groups: a KAN apart from the block that it is in, blocks, changes of resolution."""


@dataclass(frozen=True)
class Layer:
    """A multiplication by weights that can be quantized.

    Attributes:
        key: the weight's name, and ``#2`` and so on when it is used again; equal in files of one network.
        node: index of the node in the graph.
        kind: ``MatMul``, ``Gemm`` or ``Conv``.
        activation: the value that is multiplied.
        weight: the initializer, or what a Cast makes of one.
        axis: of the weight, along which the results lie.
        group: what is quantized or put back as one.
        levels: largest integer of the weight.
    """

    key: str
    node: int
    kind: str
    activation: str
    weight: str
    axis: int
    group: str
    levels: int


def find_layers(model: onnx.ModelProto, target: Target) -> tuple[Layer, ...]:
    """The multiplications of a graph that integers can do, in order.

    Outside stay products of two activations (the attention), custom nodes with all inside them, and the last
    layer with the part of the network that it belongs to (the head): its error goes into every probability.

    Args:
        model: not changed.
        target: what will run it.
    """
    shapes = weight_shapes(model)
    multiplied = [
        (index, node)
        for index, node in enumerate(model.graph.node)
        if node.domain == "" and node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] in shapes
    ]
    if not multiplied:
        return ()
    last = _part(multiplied[-1][1].name)
    rows = _rows(model)
    uses: Counter[str] = Counter()
    layers = []
    for index, node in multiplied:
        weight = node.input[1]
        uses[weight] += 1
        shape, axis = shapes[weight], _axis(node)
        too_few = node.op_type != "Conv" and (
            rows.get(node.output[0], MIN_ROWS) < MIN_ROWS or shape[1 - axis] < MIN_INPUTS[target]
        )
        too_narrow = node.op_type == "Conv" and shape[0] < MIN_CHANNELS
        if node.op_type not in KINDS[target] or _part(node.name) == last or too_few or too_narrow:
            continue
        if node.op_type == "MatMul" and len(shape) != 2:
            continue
        key = weight if uses[weight] == 1 else f"{weight}#{uses[weight]}"
        group = group_of(scope_of(node.name))
        layers.append(
            Layer(key, index, node.op_type, node.input[0], weight, axis, group, WEIGHT_LEVELS[target])
        )
    return tuple(layers)


def scope_of(node_name: str) -> str:
    """The module that a node belongs to: its name without the op."""
    return node_name.rpartition("/")[0] or node_name


def _part(node_name: str) -> str:
    """The part of the network that a node belongs to: ``encoder``, ``decoder``, ``head``."""
    return scope_of(node_name).partition(".")[0]


def group_of(scope: str) -> str:
    """The group of a module."""
    for pattern in _GROUPS:
        if (match := pattern.match(scope)) is not None:
            return match[0]
    return scope


def groups_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The groups of some layers, in order."""
    return tuple(dict.fromkeys(layer.group for layer in layers))


def weight_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the initializers, and of those behind a Cast."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes


def weight_values(model: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    """The values of a weight, also of one that is stored in half behind a Cast."""
    onnx = require("onnx", extra="calibrate", purpose="vmkla calibrate")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if name not in stored:
        name = next(node.input[0] for node in model.graph.node if name in node.output)
    values: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(stored[name]).astype(np.float32)
    return values


def weight_rows(model: onnx.ModelProto, layer: Layer) -> npt.NDArray[np.float32]:
    """The weight of a matrix product as (channels of the activation, results)."""
    values = weight_values(model, layer.weight)
    return values if layer.axis == 1 else values.T


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX's element types of the initializers, and of what Casts make."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast":
            types[node.output[0]] = next(a.i for a in node.attribute if a.name == "to")
    return types


def _axis(node: onnx.NodeProto) -> int:
    """Of a node's weight, along which the results lie."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def _rows(model: onnx.ModelProto) -> dict[str, int]:
    """Rows for each frame of values whose shape the graph states: all extents but the batch and the last."""
    rows = {}
    for value in model.graph.value_info:
        extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(extents) >= 2 and all(extents[1:]):
            rows[value.name] = int(np.prod(extents[1:-1]))
    return rows
