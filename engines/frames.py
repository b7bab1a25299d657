"""What every runner asks of the frames it is given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmkla.errors import ShapeError
from vmkla.runner import RunnerSpec


def check_frames(frames_rgb: npt.NDArray[np.uint8], spec: RunnerSpec) -> None:
    """Refuse a batch that a model does not take.

    Raises:
        ShapeError: not (n, height, width, 3) uint8, or not the fixed batch size.
    """
    expected = (spec.batch or "n", spec.height, spec.width, 3)
    seen_type = str(getattr(frames_rgb, "dtype", type(frames_rgb).__name__))
    if seen_type != "uint8":
        raise ShapeError(f"frames must be a uint8 array {expected}, got {seen_type}")
    shape = frames_rgb.shape
    if len(shape) != 4 or shape[1:] != expected[1:] or (spec.batch is not None and shape[0] != spec.batch):
        raise ShapeError(
            f"frames must be {expected}, got {shape}",
            hint="vmkla.preprocess.prepare makes frames of the model's size.",
        )
