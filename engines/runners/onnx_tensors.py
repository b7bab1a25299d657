"""Check every tensor of an ONNX file: none may lie in another file, and none may hold a NaN.

Source: onnx.proto3 of ONNX 1.x (field numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.protobuf import NotProtobufError, ProtobufReader, Value
from vmkla.errors import ArtefactMismatchError, BadInputError

DEPTH_MAX = 100
"""Largest number of nested messages; protocol-buffer parsers have the same limit."""

# Kind of message -> field number of a child that may contain a tensor -> kind of the child.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_NODE_NAME, _NODE_OP, _ATTRIBUTE_NAME, _FUNCTION_NAME = 3, 4, 1, 1
_DIMS, _TYPE, _FLOATS, _INTS, _NAME, _RAW, _DOUBLES, _EXTERNAL, _LOCATION = 1, 2, 4, 5, 8, 9, 10, 13, 14

# Element type -> stored type, mask of the exponent (all bits set: infinity or NaN), mask of the mantissa.
_STORED: dict[int, tuple[np.dtype[Any], int, int]] = {
    1: (np.dtype("<u4"), 0x7F800000, 0x007FFFFF),  # float32
    10: (np.dtype("<u2"), 0x7C00, 0x03FF),  # float16
    11: (np.dtype("<u8"), 0x7FF0000000000000, 0x000FFFFFFFFFFFFF),  # float64
    16: (np.dtype("<u2"), 0x7F80, 0x007F),  # bfloat16
}
_BLOCK = 1 << 20
"""Number of values checked at once, so that a large tensor needs no copy of its size."""


def check_tensors(data: bytes, path: Path) -> None:
    """Check that no tensor of a model lies in another file or holds values that are not finite.

    Runtimes read such a file from any path that the model names, and no checksum of the model covers it. An
    infinite value is accepted in a tensor of one element, which is a limit and not a weight.

    Args:
        data: the model's bytes.
        path: path of the model, for messages.
    Raises:
        ArtefactMismatchError: there is such a tensor.
        BadInputError: the bytes are not ONNX.
    """
    reader = ProtobufReader(data)
    try:
        for tensor, owner in _tensors(reader):
            _check_tensor(reader, tensor, owner, path)
    except (NotProtobufError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{path} is not a whole ONNX file: {error}",
            hint="It may be of another kind or cut off: fetch or export it again.",
        ) from error


def _tensors(reader: ProtobufReader) -> Iterator[tuple[Value, str]]:
    """Yield each tensor, and the node that it belongs to; empty for a weight of the graph itself."""
    stack: list[tuple[str, Value, str, int]] = [("model", reader.whole, "", 0)]
    while stack:
        kind, value, owner, depth = stack.pop()
        if depth > DEPTH_MAX:
            raise NotProtobufError(f"its graphs are nested deeper than {DEPTH_MAX} levels")
        if kind == "tensor":
            yield value, owner
            continue
        children = _CHILDREN[kind]
        found = [(children[number], part) for number, part in reader.fields(value) if number in children]
        if not found:
            continue
        if kind == "node":
            owner = f"node {reader.field_text(value, _NODE_NAME) or reader.field_text(value, _NODE_OP)!r}"
        stack.extend((inner, part, owner, depth + 1) for inner, part in found)


def _check_tensor(reader: ProtobufReader, tensor: Value, owner: str, path: Path) -> None:
    element, size, external = 0, 1, False
    for number, value in reader.fields(tensor):
        if number == _TYPE and isinstance(value, int):
            element = value
        elif number == _DIMS:
            for extent in reader.varints(value):
                size *= min(extent, 2)  # only whether there is one value matters
                size = min(size, 2)
        elif number == _EXTERNAL or (number == _LOCATION and value != 0):
            external = True
    if external:
        raise ArtefactMismatchError(
            f"{path} keeps the values of its {_label(reader, tensor, owner)} in another file, expected a "
            "model in one file",
            hint="Export it again with vmkla export, or put all in one file where you trust both: python -c "
            "\"import onnx; onnx.save(onnx.load('IN.onnx'), 'OUT.onnx', save_as_external_data=False)\"",
        )
    if element in _STORED and not _finite(reader, tensor, element, lone=size == 1):
        raise ArtefactMismatchError(
            f"{path} has values that are not finite in its {_label(reader, tensor, owner)}",
            hint="Its training diverged, or the file is damaged: take weights of an earlier epoch, or fetch "
            "it again.",
        )


def _label(reader: ProtobufReader, tensor: Value, owner: str) -> str:
    name = reader.field_text(tensor, _NAME)
    return " of ".join(part for part in (f"tensor {name!r}" if name else "tensor", owner) if part)


def _finite(reader: ProtobufReader, tensor: Value, element: int, *, lone: bool) -> bool:
    stored, exponent, mantissa = _STORED[element]
    for number, value in reader.fields(tensor):
        bits: npt.NDArray[Any]
        if number == _INTS and element in (10, 16):
            bits = np.fromiter((item & 0xFFFF for item in reader.varints(value)), stored)
        elif (number in (_RAW, _FLOATS, _DOUBLES)) and not isinstance(value, int):
            start, end = value
            bits = np.frombuffer(reader.data, stored, (end - start) // stored.itemsize, start)
        else:
            continue
        for at in range(0, len(bits), _BLOCK):
            block = bits[at : at + _BLOCK]
            wrong = block[(block & exponent) == exponent]
            if len(wrong) and not (lone and not (wrong & mantissa).any()):
                return False
    return True
