"""Ways to spoil a file, deterministic for a seed."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

Spoiler = Callable[[bytes, Random], bytes]

_INTEGERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
             2**40, 2**62, 2**63 - 1, 2**64 - 1)  # fmt: skip
_NUMBERS = (
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "-1",
    "0",
    "1e-400",
    "9" * 400,
    "9" * 6000,
    "-0.0",
)
_WORDS = (
    "",
    "../../etc/passwd",
    "/dev/zero",
    "\\u0000",
    "\\ud800",
    "\x1b[31m",
    "%s%n",
    "a" * 5000,
    "\u202e",
    "nul",
)
_DEPTHS = (50, 1_000, 100_000)


def spoil_bytes(data: bytes, rng: Random) -> bytes:
    """Change any file: bits, bytes, integers, pieces, or its end."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        rng.choice(_BYTE_CHANGES)(spoilt, rng)
    return bytes(spoilt)


def _flip(data: bytearray, rng: Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_in_head(data: bytearray, rng: Random) -> None:
    if data:
        data[rng.randrange(min(len(data), 512))] = rng.randrange(256)


def _overwrite(data: bytearray, rng: Random) -> None:
    at, length = rng.randrange(len(data) + 1), rng.randrange(1, 33)
    data[at : at + length] = rng.randbytes(len(data[at : at + length]))


def _number(data: bytearray, rng: Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    number = (rng.choice(_INTEGERS) & (2 ** (8 * size) - 1)).to_bytes(size, rng.choice(("little", "big")))
    at = rng.randrange(max(1, len(data)))
    data[at : at + size] = number[: len(data) - at]


def _digits(data: bytearray, rng: Random) -> None:
    """A number in a text."""
    found = [match.span() for match in re.finditer(rb"\d+", data)]
    if found:
        start, end = rng.choice(found)
        data[start:end] = str(rng.choice(_INTEGERS)).encode()


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 4, 188, 1024))]


def _repeat(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = bytes(data[at : at + rng.choice((1, 8, 188, 4096))]) * rng.choice((1, 2, 20))


def _move(data: bytearray, rng: Random) -> None:
    start, to = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    piece = bytes(data[start : start + rng.choice((4, 64, 1024))])
    data[to : to + len(piece)] = piece


def _blank(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((4, 64, 4096)))
    data[at:end] = bytes([rng.choice((0, 255))]) * (end - at)


_BYTE_CHANGES = (
    _flip, _flip, _flip_in_head, _overwrite, _number, _number, _digits, _cut, _remove, _repeat, _move, _blank,
)  # fmt: skip


def spoil_text(text: str, rng: Random) -> str:
    """Change a JSON text: one value in it, its nesting, or any of its bytes."""
    kind = rng.randrange(10)
    if kind == 0:
        return spoil_bytes(text.encode(), rng).decode("utf-8", "replace")
    if kind == 1:
        depth = rng.choice(_DEPTHS)
        return _put(text, "[" * depth + rng.choice(("", "]" * depth)), rng)
    if kind == 2:
        depth = rng.choice(_DEPTHS)
        return _put(text, '{"a":' * depth + "0" + "}" * depth, rng)
    return _put(text, None, rng)


def _put(text: str, new: str | None, rng: Random) -> str:
    """The JSON text with one of its values, keys or members replaced, removed or doubled."""
    mark = "\x00"
    document = json.loads(text)
    places = list(_places(document))
    if not places:
        return new or rng.choice(_NUMBERS)
    holder, key = rng.choice(places)
    if new is None and isinstance(holder, dict) and rng.random() < 0.2:
        if rng.random() < 0.5:
            del holder[key]
        else:
            holder[rng.choice(_WORDS) or "x" * rng.randrange(3)] = holder.pop(key)
        return json.dumps(document)
    old = holder[key]
    holder[key] = mark
    return json.dumps(document).replace(json.dumps(mark), new or _odd_value(old, rng), 1)


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _odd_value(old: Any, rng: Random) -> str:
    if isinstance(old, (int, float)) and not isinstance(old, bool) and rng.random() < 0.4:
        return rng.choice((str(-old), str(old * 10**6), str(old + 1), json.dumps(str(old)), f"{old}e300"))
    if isinstance(old, str) and old[:1] in "[{" and rng.random() < 0.6:
        try:
            return json.dumps(spoil_text(old, rng))
        except ValueError:
            pass
    others = ("null", "true", "[]", "{}", "[[]]", '{"a": 1}', json.dumps([0] * 1000), "[1, 2, 3]", "[null]")
    words = [f'"{word}"' if word.startswith("\\u") else json.dumps(word) for word in _WORDS]
    return rng.choice((*_NUMBERS, *others, *words))


def spoil_json(data: bytes, rng: Random) -> bytes:
    """``spoil_text`` of a whole file."""
    return spoil_text(data.decode(), rng).encode("utf-8", "surrogatepass")


def spoil_zip(data: bytes, rng: Random) -> bytes:
    """Change a ZIP archive: its bytes, or a member under a valid directory."""
    if rng.random() < 0.4:
        return spoil_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    chosen = rng.randrange(len(members))
    if rng.random() < 0.5:  # what describes the others
        chosen = next((i for i, (info, _) in enumerate(members) if info.filename.endswith(".json")), chosen)
    kind = rng.randrange(6)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for index, (info, content) in enumerate(members):
            if index == chosen and kind == 0:
                continue
            if index == chosen and kind == 1:
                info.compress_type = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED))
            if index == chosen and kind >= 2:
                spoil = spoil_json if info.filename.endswith(".json") else spoil_bytes
                content = spoil(content, rng)
            archive.writestr(info, content)
    spoilt = bytearray(written.getvalue())
    if kind == 1:
        _spoil_entry(spoilt, rng)
    return bytes(spoilt)


def _spoil_entry(data: bytearray, rng: Random) -> None:
    """Set a field of one entry of the central directory: flags, method, date, sizes, offset."""
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]
    if starts:
        at = rng.choice(starts) + rng.choice((8, 10, 12, 16, 20, 24, 28, 30, 42))
        data[at : at + 2] = rng.randbytes(2)


def spoil_safetensors(data: bytes, rng: Random) -> bytes:
    """Change a safetensors file: its bytes, or its header under a valid length."""
    if rng.random() < 0.3:
        return spoil_bytes(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = spoil_text(data[8 : 8 + length].decode(), rng).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def spoil_onnx(data: bytes, rng: Random) -> bytes:
    """Change an ONNX file: its bytes, or one field of a message that stays valid."""
    if rng.random() < 0.3:
        return spoil_bytes(data, rng)
    import onnx

    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice((_spoil_node, _spoil_attribute, _spoil_tensor, _spoil_property, _spoil_value))(model, rng)
    return bytes(model.SerializeToString())


def _spoil_node(model: Any, rng: Random) -> None:
    node = rng.choice(model.graph.node)
    other = rng.choice(model.graph.node)
    kind = rng.randrange(5)
    if kind == 0:
        node.op_type = rng.choice(("Loop", "If", "Scan", "Identity", "Nothing", other.op_type))
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*other.input, *other.output, "", "none"))
    elif kind == 2:
        node.domain = rng.choice(("", "vmkla", "com.microsoft", "ai.onnx.ml", "none"))
    elif kind == 3:
        model.graph.node.remove(node)
    else:
        node.input.append(rng.choice((*other.input, "")))


def _spoil_attribute(model: Any, rng: Random) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    attribute = rng.choice(attributes)
    number = rng.choice((*(n for n in _INTEGERS if n < 2**63), -1, -(2**63)))
    attribute.i = number
    attribute.f = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), attribute.f))
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = number
    if rng.random() < 0.2:
        attribute.type = rng.randrange(14)


def _spoil_tensor(model: Any, rng: Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(6)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, -1, 1, 3, 2**31, 2**62, 2**63 - 1))
    elif kind == 1:
        tensor.data_type = rng.randrange(24)
    elif kind == 2:
        tensor.raw_data = spoil_bytes(tensor.raw_data, rng)
    elif kind == 3:
        tensor.data_location = 1
        tensor.ClearField("raw_data")
        for key, value in (("location", rng.choice(("/etc/hostname", "../x", "data"))), ("offset", "0")):
            tensor.external_data.add(key=key, value=value)
    elif kind == 4:
        odd = rng.choice((float("nan"), float("inf"), 1e38))
        tensor.raw_data = tensor.raw_data[:-4] + struct.pack("<f", odd)
    else:
        tensor.dims.extend([rng.choice((0, 1, 2**40))] * rng.choice((1, 5, 300)))


def _spoil_property(model: Any, rng: Random) -> None:
    entry = rng.choice(model.metadata_props)
    try:
        entry.value = spoil_text(entry.value, rng).encode("utf-8", "replace").decode()
    except ValueError:  # not JSON: a version or a hash
        entry.value = rng.choice(_WORDS)


def _spoil_value(model: Any, rng: Random) -> None:
    value = rng.choice((*model.graph.input, *model.graph.output))
    kind = rng.randrange(3)
    if kind == 0:
        value.type.tensor_type.elem_type = rng.randrange(20)
    elif kind == 1:
        value.name = rng.choice(("", "frames", "probability", "x"))
    elif value.type.tensor_type.shape.dim:
        dim = rng.choice(value.type.tensor_type.shape.dim)
        dim.dim_value = rng.choice((0, -1, 1, 7, 2**31, 2**62))
