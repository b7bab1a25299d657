"""Read protocol-buffer messages from their bytes, field by field, within limits.

Source: Protocol Buffers encoding (wire format).
"""

from __future__ import annotations

from collections.abc import Iterator

FIELDS_MAX = 1_000_000
"""Largest number of fields that a reader visits, about one second; a network has about ten thousand."""
_NUMBER_MAX = (1 << 29) - 1
"""Largest field number. Parsers cut a longer tag to 32 bits and would see another field than this reader."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Span = tuple[int, int]
Value = int | Span
"""A number, or begin and end of the bytes of a message, text or fixed-width number."""


class NotProtobufError(Exception):
    """The bytes are not a protocol-buffer message of the expected structure."""


class ProtobufReader:
    """Read the fields of a message and of the messages nested in it.

    Args:
        data: the message's bytes.
    Raises:
        NotProtobufError: by every method, where the bytes are not such a message or have too many fields.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.whole: Span = (0, len(data))
        self._left = FIELDS_MAX

    def fields(self, value: Value) -> Iterator[tuple[int, Value]]:
        """Yield number and value of each field of a message."""
        return ((number, found) for number, found, _ in self.fields_to(value))

    def fields_to(self, value: Value) -> Iterator[tuple[int, Value, int]]:
        """Yield number, value and end of each field of a message; the next field begins at the end."""
        at, end = self.span(value)
        while at < end:
            self.count()
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            if not 1 <= number <= _NUMBER_MAX:
                raise NotProtobufError(f"no field starts at byte {at}")
            found: Value
            if kind == _VARINT:
                found, at = self._varint(at, end)
            elif kind in (_BYTES, _FIXED64, _FIXED32):
                length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
                if kind == _BYTES:
                    length, at = self._varint(at, end)
                found = (at, at + length)
                at += length
            else:
                raise NotProtobufError(f"no field starts at byte {at}")
            if at > end:
                raise NotProtobufError(f"it ends {at - end} bytes too early")
            yield number, found, at

    def nested(self, value: Value, number: int) -> Iterator[Value]:
        """Yield the values of one field of a message."""
        return (found for inner, found in self.fields(value) if inner == number)

    def varints(self, value: Value) -> Iterator[int]:
        """Yield the numbers of a repeated field: one number, or a packed row."""
        if isinstance(value, int):
            yield value
            return
        at, end = value
        while at < end:
            self.count()
            number, at = self._varint(at, end)
            yield number

    def text(self, value: Value) -> str:
        """Decode a text."""
        start, end = self.span(value)
        return self.data[start:end].decode("utf-8")

    def field_text(self, value: Value, number: int) -> str:
        """Return the text in one field of a message; empty where the field is missing."""
        return next((self.text(found) for found in self.nested(value, number)), "")

    def field_int(self, value: Value, number: int) -> int:
        """Return the number in one field of a message; 0 where the field is missing."""
        return next((found for found in self.nested(value, number) if isinstance(found, int)), 0)

    def span(self, value: Value) -> Span:
        """Return begin and end of a message's bytes."""
        if isinstance(value, int):
            raise NotProtobufError("a number is where a message should be")
        return value

    def count(self) -> None:
        """Count one field, and fail above the limit."""
        self._left -= 1
        if self._left < 0:
            raise NotProtobufError(
                "it has more fields than a network needs, numbers outside raw data included"
            )

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if at >= end or shift > 63:
                raise NotProtobufError(f"it ends or goes wrong at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value, at


def encode_field(number: int, value: bytes) -> bytes:
    """Encode one field that holds bytes: a text or a message."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
