"""The steps of one frame's path through a network: view, batch, infer, check, find; and all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vmkla.errors import ShapeError, VmklaError
from vmkla.runner import Runner, RunnerSpec
from vmkla.segment.findings import Findings, Probability, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, Rect, View, view

__all__ = ["View", "batch", "check", "find", "infer", "segment", "view"]

Pixels = npt.NDArray[np.uint8]

_RANGE_SLACK = 1e-3
"""How far a probability may leave 0 to 1: a device's sigmoid exceeds 1 by a rounding."""


def batch(views: Pixels | Sequence[Pixels], size: int | None = None) -> Pixels:
    """Stack network inputs into one batch.

    Args:
        views: (n, h, w, 3) uint8, or n of (h, w, 3); n at least 1.
        size: the fixed batch size of the network, which is filled up with the last view; None takes the
            views as they are.
    Returns:
        (n, h, w, 3) uint8, contiguous.
    Raises:
        ShapeError: there is no view, or there are more than ``size``.
    """
    missing = 0 if size is None else size - len(views)
    if not len(views) or missing < 0:
        raise ShapeError(f"a batch of {len(views)} frames, expected 1 to {size or 'any number'}")
    if not missing and (isinstance(views, np.ndarray) or len(views) == 1):
        return np.ascontiguousarray(views if isinstance(views, np.ndarray) else views[0][np.newaxis])
    return np.stack([*views, *[views[-1]] * missing])


def infer(runner: Runner, frames_rgb: Pixels | Sequence[Pixels]) -> Probability:
    """Run a network over any number of frames, whatever batch it takes.

    Args:
        runner: the network. A fixed batch is filled up with its last frame.
        frames_rgb: (n, h, w, 3) uint8, or n of (h, w, 3), at the network's size; n at least 1.
    Returns:
        (n, classes, h, w) float32.
    Raises:
        ShapeError: the runner does not take frames of that shape or type.
    """
    size = runner.spec.batch
    if size is None:
        return runner.infer(batch(frames_rgb))
    parts = (frames_rgb[start : start + size] for start in range(0, len(frames_rgb), size))
    answers = [runner.infer(batch(part, size))[: len(part)] for part in parts]
    return answers[0] if len(answers) == 1 else np.concatenate(answers)


def check(probability: Probability, spec: RunnerSpec, frames: int = 1) -> None:
    """Reject an output that is not a probability of the network's classes and size.

    Args:
        probability: what ``infer`` returned.
        spec: of the network.
        frames: how many frames it saw.
    Raises:
        ShapeError: shape or type is another than (frames, classes, h, w) float32.
        VmklaError: it holds NaN or infinity, or leaves 0 to 1.
    """
    expected = (frames, spec.num_classes, spec.height, spec.width)
    seen = (getattr(probability, "shape", None), str(getattr(probability, "dtype", type(probability))))
    if seen != (expected, "float32"):
        raise ShapeError(f"the network's output is {seen[1]} {seen[0]}, expected float32 {expected}")
    low, high = float(probability.min()), float(probability.max())
    if not np.isfinite(low + high):  # min and max pass a NaN on
        raise VmklaError(
            "the network's output holds NaN or infinity, expected 0 to 1",
            hint="Export again with --frames of such frames, or with --precision fp32.",
        )
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise VmklaError(f"the network's output reaches from {low:g} to {high:g}, expected 0 to 1")


def segment(
    runner: Runner,
    frame_rgb: Pixels,
    preprocess: PreprocessSpec,
    point: OperatingPoint,
    rect: Rect | None = None,
) -> tuple[Findings, Rect]:
    """Segment one frame by all steps.

    Args:
        runner: the network.
        frame_rgb: (H, W, 3) uint8.
        preprocess: its preprocessing.
        point: the rule by which a region counts as a finding.
        rect: field of view, px of the frame; None finds it by ``preprocess.roi``.
    Returns:
        The findings, and the field of view that the network saw, px of the frame.
    Raises:
        ShapeError, BadInputError, VmklaError: see ``view`` and ``check``.
    """
    seen = view(frame_rgb, preprocess, rect)
    probability = infer(runner, [seen.pixels_rgb])
    check(probability, runner.spec)
    frame_hw = (frame_rgb.shape[0], frame_rgb.shape[1])
    return find(probability[0], seen.rect, frame_hw, point), seen.rect
