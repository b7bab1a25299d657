"""Parse an ONNX file into TensorRT's network, check the network, and explain a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.plugins import CREATORS, NAMESPACE
from vmkla.errors import ArtefactMismatchError
from vmkla.metadata import ArtefactMetadata

INPUT, OUTPUT = "frames", "probability"
PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "EINSUM")
"""Kinds of layers whose type is the network's precision; half weights may be stored for float32 products."""
PLUGIN_LAYER = "PLUGIN_V3"
"""Kind of a layer that one of vmkla's plugins runs."""
SHOWN_ERRORS = 5
SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class ParsedNetwork:
    """A network, and the objects that must live as long as it does.

    Attributes:
        network: the ``INetworkDefinition``.
        parser: its parser, which holds weights that the network points to.
        builder: its builder.
    """

    network: Any
    parser: Any
    builder: Any


def parse_network(api: TensorRTApi, builder: Any, data: bytes, path: Path) -> ParsedNetwork:
    """Parse an ONNX file into a strongly typed network.

    Args:
        api: the library.
        builder: the library's ``Builder``.
        data: the file's bytes, with or without function bodies.
        path: path of the file, for messages.
    Raises:
        ArtefactMismatchError: the library's parser rejects a node.
    """
    network = builder.create_network(creation_flags(api))
    # The parser wraps the recorder that a network gets from its builder; with one, the process crashed when
    # both were destroyed (TensorRT-RTX 1.7). The parser keeps its own list of errors.
    network.error_recorder = None
    parser = api.module.OnnxParser(network, api.logger)
    if not parser.parse(data):
        raise _parse_error(api, parser, path)
    return ParsedNetwork(network, parser, builder)


def creation_flags(api: TensorRTApi) -> int:
    """Return the flags of a strongly typed network: a flag by its name, or none where it is the default."""
    member = getattr(api.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if member is None else 1 << int(member)


def layer_counts(network: Any) -> dict[str, int]:
    """Count layers by kind and output type (``"MATRIX_MULTIPLY HALF"``), most frequent first."""
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        element = layer.get_output(0).dtype.name if layer.num_outputs else "-"
        counts[f"{layer.type.name} {element}"] += 1
    return dict(counts.most_common())


def check_network(network: Any, metadata: ArtefactMetadata, path: Path) -> None:
    """Compare a network's input, output and types with the file's metadata.

    Raises:
        ArtefactMismatchError: they differ.
    """
    size = metadata.preprocess
    frames = [size.height, size.width, 3]
    element = "UINT8"
    if metadata.input_type == "float32":
        frames, element = [3, size.height, size.width], "FLOAT"
    expected = [
        (INPUT, element, frames),
        (OUTPUT, "FLOAT", [len(metadata.class_names), size.height, size.width]),
    ]
    values = [network.get_input(i) for i in range(network.num_inputs)]
    values += [network.get_output(i) for i in range(network.num_outputs)]
    seen = [(value.name, value.dtype.name, list(value.shape)[1:]) for value in values]
    if seen != expected:
        raise ArtefactMismatchError(
            f"{path} has inputs and outputs {seen} behind the batch, its metadata asks for {expected}",
            hint="Use a file that `vmkla export` wrote, unchanged.",
        )
    counts = layer_counts(network)
    halves, floats = (
        sum(counts.get(f"{kind} {element}", 0) for kind in PRODUCTS) for element in ("HALF", "FLOAT")
    )
    if (metadata.precision == "fp32" and halves) or (metadata.precision == "fp16" and not halves):
        raise ArtefactMismatchError(
            f"{path} has precision {metadata.precision} in its metadata; {halves} of its products are in "
            f"half precision, {floats} in float32",
            hint="Run: vmkla export again, with --precision fp32 or fp16",
        )


def check_custom_layers(
    layers: Mapping[str, int], nodes: Mapping[str, int], path: Path, plugin: Path | None
) -> None:
    """Check that the parser took plugins, or function bodies, for vmkla's custom nodes, as decided.

    Its preference differs by version, and an engine with function bodies is slow without any warning.

    Args:
        layers: layers of the network, see ``layer_counts``.
        nodes: nodes of the file, see ``OnnxOutline``.
        path: path of the file, for messages.
        plugin: path of the library that should run them; None where function bodies should be expanded.
    Raises:
        ArtefactMismatchError: the parser made the other choice for some nodes.
    """
    custom = {f"{NAMESPACE}.{name}" for name in CREATORS}
    wanted = 0 if plugin is None else sum(count for name, count in nodes.items() if name in custom)
    taken = sum(count for kind, count in layers.items() if kind.partition(" ")[0] == PLUGIN_LAYER)
    if taken == wanted:
        return
    if plugin is None:
        raise ArtefactMismatchError(
            f"function bodies were requested, and the parser took a plugin for {taken} nodes of {path}",
            hint="Run `vmkla build` in a process in which no plugin library is loaded.",
        )
    raise ArtefactMismatchError(
        f"the parser took the plugin library {plugin} for {taken} of the {wanted} custom nodes of {path}; "
        "the others would be slow function bodies",
        hint="Run: vmkla export again with the vmkla installed here. --plugin bodies builds without plugins.",
    )


def _parse_error(api: TensorRTApi, parser: Any, path: Path) -> ArtefactMismatchError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [_describe(error) for error in errors[:SHOWN_ERRORS]]
    if len(errors) > SHOWN_ERRORS:
        lines.append(f"and {len(errors) - SHOWN_ERRORS} more of {len(errors)} errors")
    return ArtefactMismatchError(
        "\n  ".join([f"{api.label} cannot take {path}:", *lines]),
        hint=_advice(api, errors),
    )


def _describe(error: Any) -> str:
    """Describe an error: ``node 20 'encoder/MatMul' (MatMul), in the body of ...: the parser's text``."""
    name, op = error.node_name(), error.node_operator()
    if error.node() < 0 and not op:
        return _text(error)
    where = f"node {error.node()} {name!r} ({op})" if name else f"node {error.node()} ({op}, without a name)"
    if callers := list(error.local_function_stack()):
        where += f", in the function body of {' < '.join(reversed(callers))}"
    return f"{where}: {_text(error)}"


def _text(error: Any) -> str:
    lines = [line.strip() for line in str(error.desc()).splitlines() if line.strip()]
    text = "; ".join(lines)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _advice(api: TensorRTApi, errors: list[Any]) -> str:
    """Return a hint on the first error."""
    sound = "`vmkla infer --runtime onnxruntime` shows whether the file itself is sound."
    if errors and "Plugin not found" in str(errors[0].desc()):
        return (
            f"{api.label} has no operator {errors[0].node_operator()!r}, and no plugin or function body has "
            f"that name. Use a file that `vmkla export` wrote, unchanged. {sound}"
        )
    return f"Run: vmkla export again with the vmkla installed here, or use another {api.label}. {sound}"
