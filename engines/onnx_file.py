"""Facts of an ONNX file read straight from its bytes: no onnx package and no session needed.

Only the outline is walked; tensors are skipped by their length, so a large file costs no memory.
Source: onnx.proto3 of ONNX 1.x (field numbers), Protocol Buffers encoding (wire format).
"""

from __future__ import annotations

import contextlib
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmkla.errors import BadInputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Field numbers: ModelProto, GraphProto, NodeProto, TensorProto, FunctionProto, OperatorSetIdProto, entries.
_MODEL_IR, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_PROPS, _MODEL_FUNCTIONS = 1, 2, 7, 8, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_OP, _NODE_DOMAIN = 4, 7
_TENSOR_DIMS, _TENSOR_TYPE = 1, 2
_FUNCTION_NAME, _FUNCTION_DOMAIN = 1, 10
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2  # ValueInfoProto
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIM = 1, 1, 2, 1  # TypeProto and below
_DIM_VALUE, _DIM_NAME = 1, 2

_FLOATING = {1, 10, 11, 16}  # float32, float16, float64, bfloat16
_ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}


@dataclass(frozen=True)
class OnnxValue:
    """An input or output of the graph.

    Attributes:
        name: of the value.
        element: its type, for instance ``uint8``.
        shape: its extents; a name where any will do.
    """

    name: str
    element: str
    shape: tuple[int | str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {"name": self.name, "element": self.element, "shape": list(self.shape)}


@dataclass(frozen=True)
class OnnxOutline:
    """What a file says of itself.

    Attributes:
        ir_version: of the file format.
        opsets: domain to version; the standard domain is ``""``.
        producer: what wrote it.
        metadata: its ``metadata_props``.
        nodes: nodes of the graph by ``domain.op`` (standard ops without a domain).
        inputs, outputs: of the graph.
        functions: names of the model-local functions, with their domain.
        parameters: values in floating-point initializers.
        size_bytes: length of the file.
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


def read_outline(path: Path) -> OnnxOutline:
    """Walk a file once.

    Raises:
        BadInputError: there is no such file, it is not ONNX, or it ends too early.
    """
    with _mapped(path) as data:
        return _outline(data, len(data))


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's bytes; whatever is wrong with it becomes a ``BadInputError``."""
    if path.is_dir():
        raise BadInputError(f"{path} is a folder, expected an ONNX file")
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise BadInputError(f"{path} is empty, expected an ONNX file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    except (_NotProtobufError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{path} is not a whole ONNX file: {error}",
            hint="It may be of another kind or cut off: fetch or export it again.",
        ) from error


def without_functions(path: Path) -> bytes:
    """A file's bytes with its model-local functions left out; everything else stays as it is.

    A parser that prefers a function to a plugin of the same name is left no choice.

    Raises:
        BadInputError: as ``read_outline``.
    """
    with _mapped(path) as data:
        kept = bytearray()
        at, size = 0, len(data)
        for number, _, end in _fields_to(data, 0, size):
            if number != _MODEL_FUNCTIONS:
                kept += data[at:end]
            at = end
        return bytes(kept)


def _outline(data: mmap.mmap, size: int) -> OnnxOutline:
    ir_version, producer, graphs, parameters = 0, "", 0, 0
    opsets: dict[str, int] = {}
    metadata: dict[str, str] = {}
    nodes: Counter[str] = Counter()
    inputs: list[OnnxValue] = []
    outputs: list[OnnxValue] = []
    functions: list[str] = []
    for number, value in _fields(data, 0, size):
        if number == _MODEL_IR and isinstance(value, int):
            ir_version = value
        elif number == _MODEL_PRODUCER:
            producer = _text(data, value)
        elif number == _MODEL_OPSET:
            opsets[_field_text(data, value, _OPSET_DOMAIN)] = _field_int(data, value, _OPSET_VERSION)
        elif number == _MODEL_PROPS:
            metadata[_field_text(data, value, _ENTRY_KEY)] = _field_text(data, value, _ENTRY_VALUE)
        elif number == _MODEL_FUNCTIONS:
            name, domain = (
                _field_text(data, value, _FUNCTION_NAME),
                _field_text(data, value, _FUNCTION_DOMAIN),
            )
            functions.append(f"{domain}.{name}")
        elif number == _MODEL_GRAPH:
            graphs += 1
            for inner, part in _fields(data, *_span(value)):
                if inner == _GRAPH_NODE:
                    op, domain = _field_text(data, part, _NODE_OP), _field_text(data, part, _NODE_DOMAIN)
                    nodes[f"{domain}.{op}" if domain else op] += 1
                elif inner == _GRAPH_INITIALIZER:
                    parameters += _floating_values(data, part)
                elif inner == _GRAPH_INPUT:
                    inputs.append(_graph_value(data, part))
                elif inner == _GRAPH_OUTPUT:
                    outputs.append(_graph_value(data, part))
    if ir_version == 0 or graphs != 1 or not opsets:
        raise _NotProtobufError("it has no model format version, graph or opset")
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
        size_bytes=size,
    )


class _NotProtobufError(Exception):
    """The bytes are no protocol-buffer message of the expected outline."""


_Value = int | tuple[int, int]
"""A number, or the span of a nested message or text."""


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, _Value]]:
    """Field numbers and values of the message in data[at:end]."""
    return ((number, value) for number, value, _ in _fields_to(data, at, end))


def _fields_to(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, _Value, int]]:
    """The same, and where each field ends; the next one starts there."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        value: _Value
        if number == 0:
            raise _NotProtobufError(f"no field starts at byte {at}")
        if kind == _VARINT:
            value, at = _varint(data, at, end)
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            value = (at, at + length)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            value = 0
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _NotProtobufError(f"no field starts at byte {at}")
        if at > end:
            raise _NotProtobufError(f"it ends {at - end} bytes too early")
        yield number, value, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise _NotProtobufError(f"it ends or goes wrong at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _span(value: _Value) -> tuple[int, int]:
    if isinstance(value, int):
        raise _NotProtobufError("a number stands where a message should")
    return value


def _text(data: mmap.mmap, value: _Value) -> str:
    start, end = _span(value)
    return data[start:end].decode("utf-8")


def _field_text(data: mmap.mmap, value: _Value, number: int) -> str:
    for inner, part in _fields(data, *_span(value)):
        if inner == number:
            return _text(data, part)
    return ""


def _field_int(data: mmap.mmap, value: _Value, number: int) -> int:
    for inner, part in _fields(data, *_span(value)):
        if inner == number and isinstance(part, int):
            return part
    return 0


def _graph_value(data: mmap.mmap, value: _Value) -> OnnxValue:
    element, shape = 0, list[int | str]()
    for kind, part in _fields(data, *_span(value)):
        if kind != _VALUE_TYPE:
            continue
        for tensor in _nested(data, part, _TYPE_TENSOR):
            element = _field_int(data, tensor, _TENSOR_ELEMENT)
            for extents in _nested(data, tensor, _TENSOR_SHAPE):
                for dim in _nested(data, extents, _SHAPE_DIM):
                    shape.append(_field_int(data, dim, _DIM_VALUE) or _field_text(data, dim, _DIM_NAME))
    name = _field_text(data, value, _VALUE_NAME)
    return OnnxValue(name, _ELEMENTS.get(element, f"type {element}"), tuple(shape))


def _nested(data: mmap.mmap, value: _Value, number: int) -> Iterator[_Value]:
    return (part for inner, part in _fields(data, *_span(value)) if inner == number)


def _floating_values(data: mmap.mmap, value: _Value) -> int:
    count, kind = 1, 0
    for inner, part in _fields(data, *_span(value)):
        if inner == _TENSOR_DIMS and isinstance(part, int):
            count *= part
        elif inner == _TENSOR_DIMS:  # packed
            start, end = _span(part)
            while start < end:
                extent, start = _varint(data, start, end)
                count *= extent
        elif inner == _TENSOR_TYPE and isinstance(part, int):
            kind = part
    return count if kind in _FLOATING else 0
