"""Check a runner's batch of frames, and convert it to the network's input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmkla.errors import ShapeError
from vmkla.metadata import InputType
from vmkla.runner import RunnerSpec

Frames = npt.NDArray[np.uint8]
NetworkInput = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def check_batch(frames_rgb: Frames, spec: RunnerSpec) -> None:
    """Check the type and shape of a batch.

    Raises:
        ShapeError: it is not (n, height, width, 3) uint8, or not of the model's fixed batch size.
    """
    expected = (spec.batch or "n", spec.height, spec.width, 3)
    seen_type = str(getattr(frames_rgb, "dtype", type(frames_rgb).__name__))
    if seen_type != "uint8":
        raise ShapeError(f"frames must be a uint8 array {expected}, got {seen_type}")
    shape = frames_rgb.shape
    if len(shape) != 4 or shape[1:] != expected[1:] or (spec.batch is not None and shape[0] != spec.batch):
        raise ShapeError(
            f"frames must be {expected}, got {shape}",
            hint="vmkla.segment.steps.view makes frames of the model's size.",
        )


def network_input(frames_rgb: Frames, input_type: InputType) -> NetworkInput:
    """Convert frames to the layout and type of a file's input.

    Args:
        frames_rgb: (n, height, width, 3) uint8, RGB.
        input_type: the file's input type, from its metadata.
    Returns:
        The same values, contiguous: uint8 unchanged, or float32 (n, 3, height, width).
    """
    if input_type == "uint8":
        return np.ascontiguousarray(frames_rgb)
    return np.ascontiguousarray(frames_rgb.transpose(0, 3, 1, 2), dtype=np.float32)
