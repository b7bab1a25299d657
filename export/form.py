"""What an exported graph looks like from outside, and in which arithmetic it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmkla.engines.tensorrt.build.preflight import LARGEST_BATCH
from vmkla.errors import UsageError
from vmkla.metadata import InputType, Precision

Batch = Literal["dynamic"] | int | tuple[int, int, int]
"""Any number of frames, a fixed one, or any with the (min, opt, max) that an engine is to be built for."""

DYNAMIC_BATCH = 2
"""Frames at once when a file with a dynamic batch is traced and checked: a mixed-up batch is seen."""


@dataclass(frozen=True)
class GraphForm:
    """Form of a graph.

    Attributes:
        height, width: of the input, px.
        batch: see ``Batch``.
        precision: ``fp32``, or ``fp16`` for a strongly typed half-precision graph.
        input_type: ``uint8`` frames (n, H, W, 3), or ``float32`` frames (n, 3, H, W).
        wide_scans: with ``fp16``, names of the scans that run in float32 together with their norm.
    """

    height: int
    width: int
    batch: Batch = "dynamic"
    precision: Precision = "fp32"
    input_type: InputType = "uint8"
    wide_scans: tuple[str, ...] = ()

    @property
    def fixed_batch(self) -> int | None:
        """The number of frames, where it is fixed."""
        return self.batch if isinstance(self.batch, int) else None

    @property
    def profile(self) -> tuple[int, int, int] | None:
        """(min, opt, max) of the batch, where they were given."""
        return self.batch if isinstance(self.batch, tuple) else None


def check_batch(batch: Batch) -> None:
    """Refuse a batch that makes no sense, or that ``vmkla build`` would refuse.

    Raises:
        UsageError: not ``"dynamic"``, nor a number from 1 to 256, nor three rising ones of these.
    """
    numbers = f"a number from 1 to {LARGEST_BATCH}"
    expected = f"expected 'dynamic', {numbers}, or three of them as min, opt, max"
    if isinstance(batch, tuple):
        if len(batch) != 3 or not 1 <= batch[0] <= batch[1] <= batch[2] <= LARGEST_BATCH:
            raise UsageError(f"batch is {','.join(map(str, batch))}, {expected} with min <= opt <= max")
    elif batch != "dynamic" and not (isinstance(batch, int) and 1 <= batch <= LARGEST_BATCH):
        raise UsageError(f"batch is {batch!r}, {expected}")
