"""Read and rewrite an ONNX file from its bytes, without the onnx package and without a session.

Source: onnx.proto3 of ONNX 1.x (field numbers).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmkla.bounded import MalformedError, read_file
from vmkla.engines.runners.protobuf import NotProtobufError, ProtobufReader, Value, encode_field
from vmkla.errors import BadInputError

SIZE_MAX_BYTES = (1 << 31) - 1
"""Largest protocol-buffer message."""
CONTENT_SHA256, METADATA_SHA256 = "vmkla.content_sha256", "vmkla.metadata_sha256"
"""Metadata keys of the file's ``content_sha256`` and ``metadata_sha256``."""
_SEALS = (CONTENT_SHA256, METADATA_SHA256)
_OURS = "vmkla."

# Field numbers: ModelProto, GraphProto, NodeProto, TensorProto, FunctionProto, OperatorSetIdProto, entries.
_MODEL_IR, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_PROPS, _MODEL_FUNCTIONS = 1, 2, 7, 8, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE = 1, 5, 11, 12, 13
_NODE_OP, _NODE_DOMAIN = 4, 7
_TENSOR_DIMS, _TENSOR_TYPE = 1, 2
_FUNCTION_NAME, _FUNCTION_DOMAIN = 1, 10
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2  # ValueInfoProto
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIM = 1, 1, 2, 1  # TypeProto and below
_DIM_VALUE, _DIM_NAME = 1, 2

_FLOATING = {1, 10, 11, 16}  # float32, float16, float64, bfloat16
_RANK_MAX = 64
_ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}


@dataclass(frozen=True)
class OnnxValue:
    """An input or output of the graph.

    Attributes:
        name: name of the value.
        element: type of its elements, for instance ``uint8``.
        shape: extents; a name where any extent is accepted.
    """

    name: str
    element: str
    shape: tuple[int | str, ...]

    def to_dict(self) -> dict[str, object]:
        """Convert to plain values, for JSON."""
        return {"name": self.name, "element": self.element, "shape": list(self.shape)}


@dataclass(frozen=True)
class OnnxOutline:
    """Inputs, outputs, nodes and sizes of an ONNX file.

    Attributes:
        ir_version: version of the file format.
        opsets: domain to version; the standard domain is ``""``.
        producer: name of the program that wrote the file.
        metadata: the file's ``metadata_props``.
        nodes: number of the graph's nodes by ``domain.op`` (standard ops without a domain).
        inputs, outputs: inputs and outputs of the graph.
        functions: names of the model-local functions, with their domain.
        parameters: number of values in floating-point initializers.
        size_bytes: size of the file.
    """

    ir_version: int
    opsets: dict[str, int]
    producer: str
    metadata: dict[str, str]
    nodes: dict[str, int]
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    functions: tuple[str, ...]
    parameters: int
    size_bytes: int


def read_model(path: Path) -> bytes:
    """Read a model file's bytes.

    Raises:
        BadInputError: there is no such file, it cannot be read, or it is larger than a model can be.
    """
    if path.is_dir():
        raise BadInputError(f"{path} is a folder, expected an ONNX file")
    try:
        data = read_file(path, SIZE_MAX_BYTES)
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MalformedError as error:
        raise BadInputError(f"{path} is not an ONNX file: {error}") from error
    if not data:
        raise BadInputError(f"{path} is empty, expected an ONNX file")
    return data


def outline_of(data: bytes, path: Path) -> OnnxOutline:
    """Read the outline of an ONNX file from its bytes.

    Args:
        data: the file's bytes.
        path: path of the file, for messages.
    Raises:
        BadInputError: the bytes are not ONNX, or end too early.
    """
    try:
        return _outline(ProtobufReader(data))
    except (NotProtobufError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{path} is not a whole ONNX file: {error}",
            hint="It may be of another kind or cut off: fetch or export it again.",
        ) from error


def without_functions(data: bytes) -> bytes:
    """Remove the model-local functions from a model's bytes, and the checksums, which no longer match.

    Without them a parser that prefers a function to a plugin of the same name takes the plugin.

    Raises:
        NotProtobufError: the bytes are not a model.
    """
    reader, kept, at = ProtobufReader(data), list[bytes](), 0
    for number, value, end in reader.fields_to(reader.whole):
        seal = number == _MODEL_PROPS and reader.field_text(value, _ENTRY_KEY) in _SEALS
        if number != _MODEL_FUNCTIONS and not seal:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def with_batch_of_one(data: bytes) -> bytes:
    """Replace a model's dynamic batch by 1 in every declared shape, without a change of length.

    Args:
        data: the model's bytes. A model with a fixed batch is returned unchanged.
    Raises:
        NotProtobufError: the bytes are not a model.
    """
    reader, changed = ProtobufReader(data), bytearray(data)
    graphs = list(reader.nested(reader.whole, _MODEL_GRAPH))
    declared = [
        value
        for graph in graphs
        for number, value in reader.fields(graph)
        if number in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE)
    ]
    first = next((value for graph in graphs for value in reader.nested(graph, _GRAPH_INPUT)), None)
    shape = () if first is None else _graph_value(reader, first).shape
    if not shape or not isinstance(shape[0], str):
        return data
    for value in declared:
        for dim in _dimensions(reader, value):
            at, _ = reader.span(dim)
            for number, found, end in reader.fields_to(dim):
                if number == _DIM_NAME and reader.text(found) == shape[0]:
                    # dim_value = 1, its number filled up with empty groups of 7 bits
                    changed[at:end] = b"\x08\x81" + b"\x80" * (end - at - 3) + b"\x00"
                at = end
    return bytes(changed)


def content_sha256(data: bytes) -> str:
    """Return the sha256 of a model's bytes without its ``metadata_props``, which may be rewritten.

    Raises:
        NotProtobufError: the bytes are not a model.
    """
    digest = hashlib.sha256()
    for part in _content(data):
        digest.update(part)
    return digest.hexdigest()


def metadata_sha256(props: Mapping[str, str]) -> str:
    """Return the sha256 of vmkla's entries in ``props``; other programs may add and remove theirs."""
    ours = {key: text for key, text in props.items() if key.startswith(_OURS) and key != METADATA_SHA256}
    return hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()


def with_metadata(data: bytes, props: Mapping[str, str]) -> bytes:
    """Replace a model's ``metadata_props`` and add its checksums. All of vmkla writes models through this.

    Args:
        data: the model's bytes.
        props: key to text. The hashes are added under ``CONTENT_SHA256`` and ``METADATA_SHA256``.
    Raises:
        NotProtobufError: the bytes are not a model.
    """
    entries = {**props, CONTENT_SHA256: content_sha256(data)}
    entries[METADATA_SHA256] = metadata_sha256(entries)
    encoded = (
        encode_field(_ENTRY_KEY, key.encode()) + encode_field(_ENTRY_VALUE, text.encode())
        for key, text in entries.items()
    )
    return b"".join([*_content(data), *(encode_field(_MODEL_PROPS, entry) for entry in encoded)])


def _content(data: bytes) -> Iterator[memoryview]:
    """Yield the bytes of a model's fields, without the metadata, in the file's order."""
    reader, view, at = ProtobufReader(data), memoryview(data), 0
    for number, _, end in reader.fields_to(reader.whole):
        if number != _MODEL_PROPS:
            yield view[at:end]
        at = end


def _outline(reader: ProtobufReader) -> OnnxOutline:
    ir_version, producer, graphs, parameters = 0, "", 0, 0
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    nodes: Counter[str] = Counter()
    inputs: list[OnnxValue] = []
    outputs: list[OnnxValue] = []
    functions: list[str] = []
    text, number_of = reader.field_text, reader.field_int
    for number, value in reader.fields(reader.whole):
        if number == _MODEL_IR and isinstance(value, int):
            ir_version = value
        elif number == _MODEL_PRODUCER:
            producer = reader.text(value)
        elif number == _MODEL_OPSET:
            opsets[text(value, _OPSET_DOMAIN)] = number_of(value, _OPSET_VERSION)
        elif number == _MODEL_PROPS:
            metadata[text(value, _ENTRY_KEY)] = text(value, _ENTRY_VALUE)
        elif number == _MODEL_FUNCTIONS:
            functions.append(f"{text(value, _FUNCTION_DOMAIN)}.{text(value, _FUNCTION_NAME)}")
        elif number == _MODEL_GRAPH:
            graphs += 1
            for inner, part in reader.fields(value):
                if inner == _GRAPH_NODE:
                    op, domain = text(part, _NODE_OP), text(part, _NODE_DOMAIN)
                    nodes[f"{domain}.{op}" if domain else op] += 1
                elif inner == _GRAPH_INITIALIZER:
                    parameters += _floating_values(reader, part)
                elif inner == _GRAPH_INPUT:
                    inputs.append(_graph_value(reader, part))
                elif inner == _GRAPH_OUTPUT:
                    outputs.append(_graph_value(reader, part))
    if ir_version == 0 or graphs != 1 or not opsets:
        raise NotProtobufError("it has no model format version, graph or opset")
    return OnnxOutline(
        ir_version=ir_version,
        opsets=opsets,
        producer=producer,
        metadata=metadata,
        nodes=dict(nodes.most_common()),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        functions=tuple(functions),
        parameters=parameters,
        size_bytes=len(reader.data),
    )


def _graph_value(reader: ProtobufReader, value: Value) -> OnnxValue:
    element = 0
    for part in reader.nested(value, _VALUE_TYPE):
        for tensor in reader.nested(part, _TYPE_TENSOR):
            element = reader.field_int(tensor, _TENSOR_ELEMENT)
    shape = tuple(
        reader.field_int(dim, _DIM_VALUE) or reader.field_text(dim, _DIM_NAME)
        for dim in _dimensions(reader, value)
    )
    name = reader.field_text(value, _VALUE_NAME)
    return OnnxValue(name, _ELEMENTS.get(element, f"type {element}"), shape)


def _dimensions(reader: ProtobufReader, value: Value) -> Iterator[Value]:
    """Yield the messages of a value's extents, in order."""
    for part in reader.nested(value, _VALUE_TYPE):
        for tensor in reader.nested(part, _TYPE_TENSOR):
            for extents in reader.nested(tensor, _TENSOR_SHAPE):
                yield from reader.nested(extents, _SHAPE_DIM)


def _floating_values(reader: ProtobufReader, value: Value) -> int:
    count, rank, kind = 1, 0, 0
    for inner, part in reader.fields(value):
        if inner == _TENSOR_DIMS:
            for extent in reader.varints(part):
                count, rank = count * extent, rank + 1
                if rank > _RANK_MAX:
                    raise NotProtobufError(f"a tensor has more than {_RANK_MAX} dimensions")
        elif inner == _TENSOR_TYPE and isinstance(part, int):
            kind = part
    return count if kind in _FLOATING else 0
