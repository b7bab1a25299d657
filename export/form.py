"""Inputs, batch and precision of an exported graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmkla.engines.tensorrt.build.preflight import LARGEST_BATCH
from vmkla.errors import UsageError
from vmkla.metadata import InputType, Precision

Batch = Literal["dynamic"] | int | tuple[int, int, int]
"""Any number of frames, a fixed one, or any with the (min, opt, max) for which an engine is built."""

DYNAMIC_BATCH = 2
"""Frames in a batch when a file with a dynamic batch is traced and checked, so that mixed frames are seen."""


@dataclass(frozen=True)
class GraphForm:
    """Inputs, batch and precision of a graph.

    Attributes:
        height, width: size of the input, px.
        batch: see ``Batch``.
        precision: ``fp32``, or ``fp16`` for a strongly typed half-precision graph.
        input_type: ``uint8`` frames (n, H, W, 3), or ``float32`` frames (n, 3, H, W).
        wide_scans: names of the scans that run in float32 with their norm, in an ``fp16`` graph.
    """

    height: int
    width: int
    batch: Batch = "dynamic"
    precision: Precision = "fp32"
    input_type: InputType = "uint8"
    wide_scans: tuple[str, ...] = ()

    @property
    def fixed_batch(self) -> int | None:
        """The fixed number of frames, or None."""
        return self.batch if isinstance(self.batch, int) else None

    @property
    def profile(self) -> tuple[int, int, int] | None:
        """(min, opt, max) of the batch, or None."""
        return self.batch if isinstance(self.batch, tuple) else None


def check_batch(batch: Batch) -> None:
    """Reject a batch that makes no sense or that ``vmkla build`` would refuse.

    Raises:
        UsageError: it is not ``"dynamic"``, a number from 1 to 256, or three rising ones.
    """
    numbers = f"a number from 1 to {LARGEST_BATCH}"
    expected = f"expected 'dynamic', {numbers}, or three of them as min, opt, max"
    if isinstance(batch, tuple):
        if len(batch) != 3 or not 1 <= batch[0] <= batch[1] <= batch[2] <= LARGEST_BATCH:
            raise UsageError(f"batch is {','.join(map(str, batch))}, {expected} with min <= opt <= max")
    elif batch != "dynamic" and not (isinstance(batch, int) and 1 <= batch <= LARGEST_BATCH):
        raise UsageError(f"batch is {batch!r}, {expected}")
