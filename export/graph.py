"""Tidy an exported graph: fold constants, give readable names, and remove traces of the exporter."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING, Any

from vmkla.imports import require

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
_PREFIX = "model."
_UNLIMITED = 1 << 31
_ROLES = {
    "MatMul": ("left", "weight_transposed"),
    "SelectiveScan2d": ("u", "p", "dt_weight", "A", "D", "delta_bias"),
    "BSplineBasis": ("x", "grid"),
}
"""Names of the inputs of nodes, for weights that were computed from others."""


def fold_constants(model: Any) -> None:
    """Compute what depends on weights only (transposed weights, A = -exp(A_log), rotary tables), in place.

    Args:
        model: ``onnx_ir.Model``.
    """
    optimizer = require("onnxscript.optimizer", extra="export", purpose="vmkla export")
    passes = require("onnx_ir.passes.common", extra="export", purpose="vmkla export")
    optimizer.fold_constants(
        model, input_size_limit=_UNLIMITED, output_size_limit=_UNLIMITED, should_fold=lambda node: True
    )
    passes.RemoveUnusedNodesPass()(model)
    passes.DeduplicateInitializersPass(size_limit=_UNLIMITED)(model)


def expand_elu(model: onnx.ModelProto) -> int:
    """Replace ELU(x) + 1 by r + exp(x - r) with r = relu(x), in place: equal values in a third of the time.

    ONNX Runtime's Elu computes one value at a time; its Exp is vectorised.

    Returns:
        Number of replaced nodes.
    """
    onnx = require("onnx", extra="export", purpose="vmkla export")
    graph = model.graph
    ones = {
        tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) == 0 and float(onnx.numpy_helper.to_array(tensor)) == 1.0
    }
    users = Counter(name for node in graph.node for name in node.input)
    plain = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Elu" and users[node.output[0]] == 1 and all(a.f == 1.0 for a in node.attribute)
    }
    values = {value.name: value for value in (*graph.value_info, *graph.output)}
    nodes, changed = [], 0
    for node in graph.node:
        elu = next((plain[name] for name in node.input if name in plain), None)
        if node.op_type != "Add" or elu is None or not ones & set(node.input):
            nodes.append(node)
            continue
        nodes.remove(elu)
        x, y = elu.input[0], node.output[0]
        parts = [
            onnx.helper.make_node("Relu", [x], [f"{y}.positive"]),
            onnx.helper.make_node("Sub", [x, f"{y}.positive"], [f"{y}.negative"]),
            onnx.helper.make_node("Exp", [f"{y}.negative"], [f"{y}.decay"]),
            onnx.helper.make_node("Add", [f"{y}.positive", f"{y}.decay"], [y]),
        ]
        for part in parts:
            part.metadata_props.extend(elu.metadata_props)
        nodes.extend(parts)
        for part in parts[:-1]:  # state their type and shape, which are those of y
            if y in values:
                stated = graph.value_info.add()
                stated.CopyFrom(values[y])
                stated.name = part.output[0]
        changed += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def name_after_modules(model: onnx.ModelProto) -> None:
    """Name nodes, values and weights after their modules, and remove the exporter's notes, in place.

    A node and its output have a name such as ``encoder.stages.0.blocks.1.scan/SelectiveScan2d``.
    """
    graph = model.graph
    fixed = {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    folded = {tensor.name for tensor in graph.initializer if not tensor.name.startswith(_PREFIX)}
    taken: Counter[str] = Counter()

    def unused(name: str) -> str:
        taken[name] += 1
        return name if taken[name] == 1 else f"{name}_{taken[name]}"

    for tensor in graph.initializer:
        if tensor.name not in folded:
            renamed[tensor.name] = unused(_without_prefix(tensor.name))
    for node in graph.node:
        scope = _scope(node)
        node.name = unused(f"{scope}/{node.op_type}" if scope else node.op_type)
        for i, output in enumerate(node.output):
            if output and output not in fixed:
                renamed[output] = node.name if i == 0 else f"{node.name}:{i}"
        # A folded weight has lost its name; it is named after its first use.
        for i, name in enumerate(node.input):
            if name in folded:
                folded.remove(name)
                role = _ROLES.get(node.op_type, ())
                what = role[i] if i < len(role) else f"{node.op_type}.constant"
                renamed[name] = unused(f"{scope}.{what}".lstrip("."))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    # Shapes stay: ONNX Runtime cannot infer them behind a custom node, and fuses less without them.
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
        value.doc_string = ""
    for holder in (graph, model):
        del holder.metadata_props[:]
        holder.doc_string = ""


def _scope(node: onnx.NodeProto) -> str:
    """Return the dotted name of the innermost module that a node comes from."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            *modules, _ = ast.literal_eval(entry.value)
            return _without_prefix(f"{modules[-1]}.").rstrip(".") if modules else ""
    return ""


def _without_prefix(name: str) -> str:
    return name.removeprefix(_PREFIX)
