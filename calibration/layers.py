"""Find the multiplications that are quantized. Their names are equal in the float32 and the half file."""

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
"""ONNX Runtime multiplies integers in a convolution or a Gemm only when its bias is quantized too, which
TensorRT does not accept. Without it, it dequantizes and computes in float32, slower than before."""

MIN_ROWS = 16
"""Fewest rows of a product per frame; with fewer (the channel attention has one) quantizing saves nothing."""
MIN_CHANNELS = 16
"""Fewest results of a convolution; integer kernels work on at least 16 at once."""
MIN_INPUTS: dict[Target, int] = {"cpu": 64, "cpu-vnni": 64, "tensorrt": 16}
"""Fewest values that a product sums. With fewer, a CPU takes longer to quantize them than it saves."""

_GROUPS = tuple(
    re.compile(pattern) for pattern in (r".*\.query_key(?=\.|$)", r".*?\.blocks\.\d+", r".*\.(down|up)sample")
)
"""Patterns of groups in node names: KANs (apart from their blocks), blocks, and resampling layers."""


@dataclass(frozen=True)
class Layer:
    """A multiplication by weights that can be quantized.

    Attributes:
        key: name of the weight, with ``#2`` and so on for further uses; equal in files of one network.
        node: index of the node in the graph.
        kind: ``MatMul``, ``Gemm`` or ``Conv``.
        activation: name of the value that is multiplied.
        weight: name of the initializer, or of the output of its Cast.
        axis: axis of the weight along which the results are.
        group: name of the group of layers that are quantized or put back together.
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
    """Find the multiplications of a graph that can be quantized, in order.

    It leaves out products of two activations (the attention), custom nodes, and the part of the network with
    the last layer (the head), whose error is in every probability.

    Args:
        model: the graph; it is not changed.
        target: what will run the quantized graph.
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
    """Return the module of a node: its name without the op."""
    return node_name.rpartition("/")[0] or node_name


def _part(node_name: str) -> str:
    """Return the part of the network of a node: ``encoder``, ``decoder`` or ``head``."""
    return scope_of(node_name).partition(".")[0]


def group_of(scope: str) -> str:
    """Return the group of a module."""
    for pattern in _GROUPS:
        if (match := pattern.match(scope)) is not None:
            return match[0]
    return scope


def groups_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the groups of some layers, in order."""
    return tuple(dict.fromkeys(layer.group for layer in layers))


def weight_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the initializers and of the outputs of their Casts."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes


def weight_values(model: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    """Return the values of a weight, even of one that is stored in half before a Cast."""
    onnx = require("onnx", extra="calibrate", purpose="vmkla calibrate")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if name not in stored:
        name = next(node.input[0] for node in model.graph.node if name in node.output)
    values: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(stored[name]).astype(np.float32)
    return values


def weight_rows(model: onnx.ModelProto, layer: Layer) -> npt.NDArray[np.float32]:
    """Return the weight of a matrix product as (channels of the activation, results)."""
    values = weight_values(model, layer.weight)
    return values if layer.axis == 1 else values.T


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return ONNX's element types of the initializers and of the outputs of Casts."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast":
            types[node.output[0]] = next(a.i for a in node.attribute if a.name == "to")
    return types


def _axis(node: onnx.NodeProto) -> int:
    """Return the axis of a node's weight along which the results are."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def _rows(model: onnx.ModelProto) -> dict[str, int]:
    """Return the rows per frame of values with a known shape: all extents but the first and the last."""
    rows = {}
    for value in model.graph.value_info:
        extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(extents) >= 2 and all(extents[1:]):
            rows[value.name] = int(np.prod(extents[1:-1]))
    return rows
