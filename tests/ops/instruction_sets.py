"""The instruction sets that this machine can run, for tests of the kernels on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vmkla.ops.backends import native


@contextmanager
def using(name: str) -> Iterator[bool]:
    """Run the kernels on another instruction set; yields False where it is missing."""
    before = native().instruction_set
    try:
        yield native().set_instruction_set(name)
    finally:
        native().set_instruction_set(before)


def available() -> list[str]:
    """Return the names of the instruction sets, at least one."""
    found = []
    for name in ("avx512", "avx2", "neon", "baseline"):
        with using(name) as there:
            if there:
                found.append(name)
    return found
