"""A ring of slots in shared memory: one process writes, others read, none waits, and no read is mixed.

Slots are written in turn and numbered from 1. A slot's number is written before and after its content, and
the content has a checksum, so a reader detects that it was overtaken or that a writer died half way. There
are no locks: a process that is killed or stopped at any instruction delays no other.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import VmklaError

Bytes = npt.NDArray[np.uint8]

NOTE_BYTES = 64
"""Largest size of the note beside a slot's content."""
_PAGE_BYTES = 4096
_WORD_BYTES = 8
_NEWEST = 0  # word of the control page that holds the number of the newest complete slot
_HEAD_BYTES = 128
_BEGUN, _ENDED = 0, 1  # words of a slot's head: its number, before and after the content
_FACTS = struct.Struct(f"<QQ{NOTE_BYTES}s")  # length of the content, its checksum, the note
_FACTS_AT = 2 * _WORD_BYTES
_CHECK = struct.Struct("<I")  # of number and facts
_CHECK_AT = _FACTS_AT + _FACTS.size
_MADV_POPULATE_WRITE = 23  # linux/mman.h
_TOUCH_BYTES = 1 << 18
_ATTEMPTS = 4
"""Number of reads before content counts as torn: a processor may see writes out of order for an instant."""


@dataclass(frozen=True, eq=False)
class Slot:
    """A copy of one slot.

    Attributes:
        number: number of the slot, from 1.
        note: note as written.
        content: (n,) uint8.
    """

    number: int
    note: bytes
    content: Bytes


class TornError(Exception):
    """The content of a slot does not match its checksum."""


class OverwrittenError(Exception):
    """A slot was overwritten by a newer one."""


class SharedSlots:
    """A ring of slots in anonymous memory, which is freed when the last process that maps it ends.

    Only pages that were written take memory, so slots may be as large as the largest content. Pickled into
    a process that is being started, the object maps the same memory there.

    Args:
        slots: number of slots, at least 2; a reader has as long as it takes to write the others.
        slot_bytes: size of the largest content.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        if slots < 2 or slot_bytes < 1:
            raise VmklaError(f"{slots} slots of {slot_bytes} bytes, expected at least 2 of at least 1")
        fd = os.memfd_create("vmkla", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._map(fd, slots, slot_bytes, writable=True, create=True)

    def _map(self, fd: int, slots: int, slot_bytes: int, *, writable: bool, create: bool = False) -> None:
        self.slots, self.slot_bytes, self.writable = slots, slot_bytes, writable
        self._fd = fd
        self._stride_bytes = -(-slot_bytes // _PAGE_BYTES) * _PAGE_BYTES
        self._content_at = -(-(_PAGE_BYTES + slots * _HEAD_BYTES) // _PAGE_BYTES) * _PAGE_BYTES
        size_bytes = self._content_at + slots * self._stride_bytes
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            if create:
                os.ftruncate(fd, size_bytes)
                # A process that truncates the file would end every other that reads it.
                fcntl.fcntl(
                    fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
                )
            memory = mmap.mmap(fd, size_bytes, access=access)
        except BaseException:
            os.close(fd)
            raise
        self._bytes: Bytes | None = np.frombuffer(memory, np.uint8)
        self._words: memoryview | None = memoryview(memory)[: self._content_at].cast("Q")

    def __getstate__(self) -> dict[str, Any]:
        return {
            "fd": DupFd(self._fd),
            "slots": self.slots,
            "slot_bytes": self.slot_bytes,
            "writable": self.writable,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._map(state["fd"].detach(), state["slots"], state["slot_bytes"], writable=state["writable"])

    def reader(self) -> SharedSlots:
        """Return the same memory, mapped read-only."""
        other = SharedSlots.__new__(SharedSlots)
        other._map(os.dup(self._fd), self.slots, self.slot_bytes, writable=False)
        return other

    def touch(self, length: int) -> None:
        """Bring the first ``length`` bytes of every slot into memory, without changing them.

        The first write to a page costs ten times as much as a later one. Another thread may call this beside
        ``write``: it releases the interpreter, and works in small steps.
        """
        memory = self._bytes
        if memory is None:
            return
        libc = ctypes.CDLL(None)
        at = memory.ctypes.data + self._content_at
        for slot in range(self.slots):
            for start in range(0, min(length, self.slot_bytes), _TOUCH_BYTES):
                where = ctypes.c_void_p(at + slot * self._stride_bytes + start)
                size = ctypes.c_size_t(min(_TOUCH_BYTES, self._stride_bytes - start))
                if libc.madvise(where, size, _MADV_POPULATE_WRITE):
                    return  # Linux before 5.14: the pages come when they are written

    def close(self) -> None:
        """Release the memory; a second call does nothing."""
        if self._bytes is None:
            return
        self._bytes = None
        self._words = None  # the mapping ends with the last view of it
        os.close(self._fd)

    @property
    def newest(self) -> int:
        """Number of the newest complete slot; 0 before the first."""
        return int(self._open_words()[_NEWEST])

    def write(self, pieces: Sequence[Bytes], note: bytes = b"") -> None:
        """Write the next slot, without waiting. Only one process may write.

        Args:
            pieces: (n,) uint8 each, written one after the other.
            note: at most ``NOTE_BYTES``.
        Raises:
            VmklaError: the content is larger than a slot.
        """
        length = sum(len(piece) for piece in pieces)
        if length > self.slot_bytes or len(note) > NOTE_BYTES:
            raise VmklaError(f"{length} bytes were to be shared, expected at most {self.slot_bytes}")
        words, memory = self._open_words(), self._open_bytes()
        number = words[_NEWEST] + 1
        head = self._head(number)
        first = head // _WORD_BYTES
        words[first + _BEGUN] = number
        content = self._content(number)[:length]
        at = 0
        for piece in pieces:
            content[at : at + len(piece)] = piece
            at += len(piece)
        facts = _FACTS.pack(length, checksum(content), note)
        memory[head + _FACTS_AT : head + _CHECK_AT] = np.frombuffer(facts, np.uint8)
        check = _CHECK.pack(_check(number, facts))
        memory[head + _CHECK_AT : head + _CHECK_AT + _CHECK.size] = np.frombuffer(check, np.uint8)
        words[first + _ENDED] = number
        words[_NEWEST] = number

    def read(self, number: int) -> Slot:
        """Copy a slot.

        Raises:
            OverwrittenError: the slot was overwritten before or during the read.
            TornError: the content does not match its checksum, and was not overwritten.
        """
        for attempt in range(_ATTEMPTS):
            slot = self._copy(number)
            if slot is not None:
                return slot
            if attempt == 0:
                continue
            os.sched_yield()
        raise TornError

    def _copy(self, number: int) -> Slot | None:
        """Return the slot; None when it is not complete."""
        words, memory = self._open_words(), self._open_bytes()
        head = self._head(number)
        first = head // _WORD_BYTES
        begun = words[first + _BEGUN]
        if begun > number:
            raise OverwrittenError
        facts = memory[head + _FACTS_AT : head + _CHECK_AT].tobytes()
        (check,) = _CHECK.unpack(memory[head + _CHECK_AT : head + _CHECK_AT + _CHECK.size].tobytes())
        slot: Slot | None = None
        if words[first + _ENDED] == begun == number and check == _check(number, facts):
            length, sum_written, note = _FACTS.unpack(facts)
            content = self._content(number)[:length].copy()
            if checksum(content) == sum_written:
                slot = Slot(number, note, content)
        if words[first + _BEGUN] > number:
            raise OverwrittenError
        return slot

    def _head(self, number: int) -> int:
        return _PAGE_BYTES + (number % self.slots) * _HEAD_BYTES

    def _content(self, number: int) -> Bytes:
        at = self._content_at + (number % self.slots) * self._stride_bytes
        return self._open_bytes()[at : at + self.slot_bytes]

    def _open_bytes(self) -> Bytes:
        if self._bytes is None:
            raise VmklaError("shared memory was used after it was closed")
        return self._bytes

    def _open_words(self) -> memoryview:
        if self._words is None:
            raise VmklaError("shared memory was used after it was closed")
        return self._words


def checksum(content: Bytes) -> int:
    """Compute a checksum of all bytes that costs less than copying them.

    CRC-32 of the 64-bit sums of blocks of 4096 bytes, and of the rest as it is. It detects content that is
    part of one frame and part of another: any change of one block unless its 64-bit sum stays equal (words in
    another order, or errors that cancel), and blocks in another order. It is not a protection against
    attacks.

    Args:
        content: (n,) uint8, contiguous.
    """
    whole = len(content) // _PAGE_BYTES * _PAGE_BYTES
    blocks = content[:whole].view(np.uint64).reshape(-1, _PAGE_BYTES // _WORD_BYTES)
    sums: npt.NDArray[np.uint64] = np.add.reduce(blocks, axis=1)  # wraps round
    return zlib.crc32(content[whole:].data, zlib.crc32(sums.data))


def _check(number: int, facts: bytes) -> int:
    return zlib.crc32(facts, zlib.crc32(struct.pack("<Q", number)))
