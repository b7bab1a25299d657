"""Equalise the channels of an activation before quantization: divide them, and multiply the weight.

All channels have one scale. Where one of them is ten times as large as the others, these have a tenth of the
levels. With a divisor s for each channel ``x W = (x / s) (s W)``: the product is the same.

Source: Xiao et al., SmoothQuant, 2023, sec. 4.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.calibration.insertion import LEVELS
from vmkla.calibration.layers import Layer, value_types, weight_rows, weight_values
from vmkla.imports import require

if TYPE_CHECKING:
    import onnx

Divisors = Mapping[str, npt.NDArray[np.float32]]
"""Divisor of each channel of an activation, (channels,), by ``Layer.key``."""

SHARE = 0.75
"""Share of the differences between channels that moves from the activation into the weight. The weight has a
scale for each result, so it tolerates more than half. Mean relative error of ``nano``'s products: 1.31 %
without, 1.10 %
with 0.25, 0.83 % with 0.5, 0.71 % with 0.75, 0.75 % with 1. With 7-bit weights 0.75 is the best, too."""
WORTH = 0.75
"""Largest predicted error after the division, relative to the one before. Dividing takes time, so a layer
that gains less is not divided."""
SMALLEST = 1e-3
"""Smallest magnitude of a channel relative to the largest one; smaller channels, such as unused ones, would
get huge divisors."""
MEAN_SQUARE = 0.04
"""Mean square of a channel relative to its largest value's square: the median of ``nano``'s activations."""


def find_divisors(
    model: onnx.ModelProto, layers: Sequence[Layer], channels: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Find the divisors of the layers that gain by them.

    Args:
        model: a float32 graph.
        layers: layers of the graph.
        channels: result of ``measure_channels``.
    """
    found = {}
    for layer in layers:
        if layer.kind == "Conv":
            continue
        largest, weight = _floored(channels[layer.activation]), weight_rows(model, layer)
        divisors = largest**SHARE / _floored(np.abs(weight).max(axis=1)) ** (1.0 - SHARE)
        divisors = (divisors / np.exp(np.log(divisors).mean())).astype(np.float32)
        after = predicted_error(largest / divisors, weight * divisors[:, None], layer.levels)
        if after < WORTH * predicted_error(largest, weight, layer.levels):
            found[layer.key] = divisors
    return found


def predicted_error(
    largest: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], levels: int = LEVELS
) -> float:
    """Predict the root of the summed squares of a product's rounding errors, up to a constant.

    Args:
        largest: (channels,) magnitudes of an activation, whose step follows from the largest one.
        weight: (channels, results); the step of each column follows from its largest value.
        levels: largest integer of the weight; that of an activation is ``LEVELS``.
    """
    of_activation = float(largest.max()) ** 2 * float((weight**2).sum())
    of_weight = MEAN_SQUARE * float((largest**2).sum()) * float((np.abs(weight).max(axis=0) ** 2).sum())
    return float(np.sqrt(of_activation + of_weight * (LEVELS / levels) ** 2))


def equalise(
    model: onnx.ModelProto, layers: Sequence[Layer], divisors: Divisors
) -> tuple[onnx.ModelProto, tuple[Layer, ...]]:
    """Copy a graph with the same products of activations whose channels have more similar magnitudes.

    The norm before an activation is divided where nothing else reads it, which costs no time; otherwise the
    copy has one more Mul.

    Args:
        model: a float32 or half graph.
        layers: layers of the graph.
        divisors: divisors by ``Layer.key``; a layer without divisors does not change.
    Returns:
        The copy, and the layers in it.
    """
    editor = _Editor(model)
    changed = [
        editor.divide(layer, divisors[layer.key]) if layer.key in divisors else layer for layer in layers
    ]
    places = editor.finish()
    return editor.made, tuple(dataclasses.replace(layer, node=places[layer.node]) for layer in changed)


class _Editor:
    """Divide activations and multiply weights; nodes keep their indices until ``finish``."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._onnx: Any = require("onnx", extra="calibrate", purpose="vmkla calibrate")
        self._model, self.made = model, copy.deepcopy(model)
        self._types = value_types(model)
        self._makers = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self._uses.update(value.name for value in model.graph.output)
        self._muls: dict[int, onnx.NodeProto] = {}
        self._replaced: set[str] = set()

    def divide(self, layer: Layer, divisors: npt.NDArray[np.float32]) -> Layer:
        """Divide a layer's activation, and return the layer with its new inputs."""
        factors = (1.0 / divisors).astype(self._dtype(layer.weight))
        activation = layer.activation
        if not self._into_norm(layer, factors):
            activation = f"{layer.key}/divided"
            name = self._constant(f"{layer.key}.factors", factors)
            self._muls[layer.node] = self._onnx.helper.make_node(
                "Mul", [layer.activation, name], [activation], name=f"{activation}/Mul"
            )
        rows = weight_rows(self._model, layer) / factors.astype(np.float32)[:, None]
        values = (rows if layer.axis == 1 else rows.T).astype(factors.dtype)
        self._replaced.add(layer.weight)
        weight = self._constant(f"{layer.key}.equalised", values)
        node = self.made.graph.node[layer.node]
        node.input[0], node.input[1] = activation, weight
        return dataclasses.replace(layer, activation=activation, weight=weight)

    def finish(self) -> list[int]:
        """Insert the new nodes, remove unused ones, and return the new index of each old node."""
        graph = self.made.graph
        used = {name for node in graph.node for name in node.input}
        gone = {name for name in self._replaced if name not in used}
        nodes: list[onnx.NodeProto] = []
        places: list[int] = []
        for index, node in enumerate(graph.node):
            if index in self._muls:
                nodes.append(self._muls[index])
            places.append(len(nodes))
            if node.op_type == "Cast" and node.output[0] in gone:
                if self._uses[node.input[0]] == 1:
                    gone.add(node.input[0])
                continue
            nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
        for index in reversed(range(len(graph.initializer))):
            if graph.initializer[index].name in gone:
                del graph.initializer[index]
        return places

    def _into_norm(self, layer: Layer, factors: npt.NDArray[Any]) -> bool:
        """Multiply the norm that makes an activation, or a factor of it, if nothing else reads them."""
        index = self._sole(layer.activation)
        if index is None:
            return False
        node = self._model.graph.node[index]
        if node.op_type == "Mul":
            makers = [maker for name in node.input if (maker := self._sole(name)) is not None]
            norms = [maker for maker in makers if self._is_norm(maker)]
            index = norms[0] if norms else index
        if not self._is_norm(index):
            return False
        parts = [name for name in self._model.graph.node[index].input[1:] if name]
        values = [weight_values(self._model, name) for name in parts]
        if any(value.shape != factors.shape for value in values):
            return False
        for place, (name, value) in enumerate(zip(parts, values, strict=True), 1):
            scaled = (value * factors.astype(np.float32)).astype(self._dtype(name))
            self._replaced.add(name)
            self.made.graph.node[index].input[place] = self._constant(f"{layer.key}.norm{place}", scaled)
        return True

    def _is_norm(self, index: int) -> bool:
        return bool(self._model.graph.node[index].op_type == "LayerNormalization")

    def _sole(self, name: str) -> int | None:
        """Return the index of the node that makes a value with one reader; None for other values."""
        return self._makers.get(name) if self._uses[name] == 1 else None

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        contiguous = np.ascontiguousarray(values)
        self.made.graph.initializer.append(self._onnx.numpy_helper.from_array(contiguous, name))
        return name

    def _dtype(self, name: str) -> Any:
        half = self._types[name] == self._onnx.TensorProto.FLOAT16
        return np.dtype(np.float16 if half else np.float32)


def _floored(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    least = max(SMALLEST * float(values.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return np.asarray(np.maximum(values, np.float32(least)))
