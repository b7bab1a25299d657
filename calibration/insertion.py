"""Insert quantize and dequantize nodes around a graph's multiplications.

ONNX Runtime's functions compute their scales, but its quantizer does not place them: it routes every user of
a value through one pair, so a scan that shares a product's input would get quantized inputs, and ONNX Runtime
multiplies integers only where a product has its own pair.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.calibration.layers import Layer, value_types, weight_values
from vmkla.errors import GateError
from vmkla.imports import require

if TYPE_CHECKING:
    import onnx

Range = tuple[float, float]
"""Smallest and largest value of an activation that is represented; others saturate."""

LEVELS = 127
"""Largest integer of an activation: -127 to 127, and 0 for 0. That of a weight is its layer's ``levels``."""

_AXES = (1, 0, 2, 3)
"""Axis attributes of the pairs of one value, from the first on; 1 is the default."""


def insert(model: onnx.ModelProto, layers: Sequence[Layer], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Copy a graph with some layers that multiply integers.

    An activation has one scale, a weight one for each result; zero points are 0. Sums, biases, results,
    function bodies and metadata do not change.

    Args:
        model: a float32 or half graph.
        layers: layers that ``find_layers`` found in the graph.
        ranges: ranges of the layers' activations, by ``Layer.key``.
    Raises:
        GateError: a range is not finite.
    """
    made = copy.deepcopy(model)
    writer = _Writer(model, made)
    for layer in layers:
        low, high = ranges[layer.key]
        if not (math.isfinite(low) and math.isfinite(high)):
            raise GateError(
                f"the values that {layer.key} multiplies reach from {low} to {high}, expected finite numbers",
                hint="Look at the model with: vmkla verify MODEL MODEL --data DIR",
            )
        node = made.graph.node[layer.node]
        node.input[0] = writer.activation(layer, (low, high))
        node.input[1] = writer.weight(layer)
        writer.keep_bias_apart(layer)
    writer.finish()
    return made


class _Writer:
    """Collect the new nodes, then insert each before the first node that uses it."""

    def __init__(self, model: onnx.ModelProto, made: onnx.ModelProto) -> None:
        self._onnx: Any = require("onnx", extra="calibrate", purpose="vmkla calibrate")
        self._arithmetic: Any = require(
            "onnxruntime.quantization.quant_utils", extra=None, purpose="vmkla calibrate"
        )
        self._model, self._made = model, made
        self._types = value_types(model)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._biases: dict[str, str] = {}
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._users: Counter[str] = Counter()
        self._weights: dict[str, tuple[str, str]] = {}

    def activation(self, layer: Layer, limits: Range) -> str:
        """Quantize and dequantize the activation for this layer only, and return the result's name."""
        result = f"{layer.key}/activation"
        scale, zero, quantized = (f"{result}.{part}" for part in ("scale", "zero_point", "int8"))
        self._constant(scale, self._scale(*limits, LEVELS, self._dtype(layer)))
        self._constant(zero, np.zeros((), np.int8))
        # Equal nodes are merged when ONNX Runtime loads a file, and a value that is quantized for two
        # products leaves both float32. With one scale the axis has no meaning, but makes the nodes differ.
        users = self._users[layer.activation]
        self._users[layer.activation] += 1
        apart = {"axis": _AXES[users]} if 0 < users < len(_AXES) else {}
        self._node("QuantizeLinear", [layer.activation, scale, zero], quantized, layer, **apart)
        self._node("DequantizeLinear", [quantized, scale, zero], result, layer, **apart)
        return result

    def weight(self, layer: Layer) -> str:
        """Quantize and dequantize the weight, and return the result's name."""
        dtype = self._dtype(layer)
        if layer.weight not in self._weights:
            values = weight_values(self._model, layer.weight)
            others = tuple(axis for axis in range(values.ndim) if axis != layer.axis)
            limits = np.abs(values).max(axis=others)
            scales = np.array([self._scale(-limit, limit, layer.levels, dtype) for limit in limits], dtype)
            spread = np.expand_dims(scales.astype(np.float32), others)
            integers = np.clip(np.rint(values / spread), -layer.levels, layer.levels).astype(np.int8)
            name = f"{layer.weight}.int8"
            self._constant(name, integers)
            self._constant(f"{name}.scale", scales)
            self._constant(f"{name}.zero_point", np.zeros(len(scales), np.int8))
            self._weights[layer.weight] = (name, f"{name}.scale")
        name, scale_name = self._weights[layer.weight]
        result = f"{layer.key}/weight"
        self._node(
            "DequantizeLinear", [name, scale_name, f"{name}.zero_point"], result, layer, axis=layer.axis
        )
        return result

    def keep_bias_apart(self, layer: Layer) -> None:
        """Give the bias behind a float32 product one more axis, so that ONNX Runtime does not fuse the two.

        At a fixed batch it fuses a product and a bias of one axis to a Gemm before it looks for integers, and
        then dequantizes the weights at every frame: 28 such layers cost all that INT8 saves in ``small``.
        """
        if layer.kind != "MatMul" or self._dtype(layer) != np.float32:
            return
        product = self._made.graph.node[layer.node].output[0]
        for node in self._made.graph.node:
            if node.op_type != "Add" or product not in node.input:
                continue
            place = 1 - list(node.input).index(product)
            bias = self._initializers.get(node.input[place])
            if bias is not None and len(bias.dims) == 1:
                if bias.name not in self._biases:
                    self._biases[bias.name] = f"{bias.name}/rows"
                    values = self._onnx.numpy_helper.to_array(bias)
                    self._constant(self._biases[bias.name], values[np.newaxis, np.newaxis])
                node.input[place] = self._biases[bias.name]

    def finish(self) -> None:
        """Insert the new nodes, and remove unused weights, their Casts, and unused biases."""
        graph = self._made.graph
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        dropped = {name for name in (*self._weights, *self._biases) if name not in used}
        nodes = []
        for index, node in enumerate(graph.node):
            if node.op_type == "Cast" and node.output[0] in dropped:
                dropped.add(node.input[0])
                continue
            nodes += [*self._before.get(index, ()), node]
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [tensor for tensor in graph.initializer if tensor.name not in dropped]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _dtype(self, layer: Layer) -> Any:
        half = self._types[layer.weight] == self._onnx.TensorProto.FLOAT16
        return np.dtype(np.float16 if half else np.float32)

    def _scale(self, low: float, high: float, most: int, dtype: Any) -> npt.NDArray[Any]:
        """Compute the value of one step with ONNX Runtime's arithmetic, () of dtype."""
        limits = np.array(low, np.float32), np.array(high, np.float32)
        levels = np.array(-most, np.int8), np.array(most, np.int8)
        _, scale = self._arithmetic.compute_scale_zp(*limits, *levels, symmetric=True)
        smallest = np.finfo(dtype).smallest_normal
        return np.asarray(np.maximum(np.asarray(scale, np.float32), smallest), dtype)

    def _constant(self, name: str, values: npt.NDArray[Any]) -> None:
        self._made.graph.initializer.append(self._onnx.numpy_helper.from_array(values, name))

    def _node(self, op: str, inputs: list[str], output: str, layer: Layer, **attributes: int) -> None:
        made = self._onnx.helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes)
        self._before.setdefault(layer.node, []).append(made)
