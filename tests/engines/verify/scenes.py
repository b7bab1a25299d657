"""Two networks whose masks are the colours of a frame, and frames made for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tests.evaluation.colour_runners import RedRunner
from vmkla.engines.verify.frame import VerifyFrame

SIDE = 40
RED, GREEN = 0, 1

Bools = npt.NDArray[np.bool_]


class ChannelRunner(RedRunner):
    """Its probability is one colour channel over 255: red and green are two networks on one picture."""

    def __init__(self, channel: int, *, weights: str = "", random_weights: bool = False) -> None:
        super().__init__(SIDE, SIDE)
        self._channel = channel
        metadata = dataclasses.replace(
            self.spec.metadata, weights_sha256=weights or f"{channel}" * 64, random_weights=random_weights
        )
        self.spec = dataclasses.replace(self.spec, metadata=metadata, path=f"channel{channel}.onnx")

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, h, w, 3) -> (n, 1, h, w)."""
        return super().infer(np.repeat(frames_rgb[..., self._channel :][..., :1], 3, axis=-1))


class SpoiltRunner(ChannelRunner):
    """A runner whose output is changed before it is returned."""

    def __init__(self, spoil: Callable[[npt.NDArray[np.float32]], None]) -> None:
        super().__init__(RED, weights="9" * 64)
        self._spoil = spoil

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, h, w, 3) -> (n, 1, h, w)."""
        probability = super().infer(frames_rgb)
        self._spoil(probability)
        return probability


def box(top: int, left: int, height: int, width: int) -> Bools:
    """(SIDE, SIDE), true in a rectangle."""
    region = np.zeros((SIDE, SIDE), bool)
    region[top : top + height, left : left + width] = True
    return region


NOTHING = box(0, 0, 0, 0)
LESION = box(5, 5, 20, 20)
"""A quarter of the image."""


def frame(name: str, reference: Bools, candidate: Bools, truth: Bools | None = None) -> VerifyFrame:
    """Make a frame in which the red network marks one region and the green one another."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., RED] = np.where(reference, 255, 0)
    image[..., GREEN] = np.where(candidate, 255, 0)
    image[..., 2] = np.random.default_rng(len(name)).integers(0, 256, (SIDE, SIDE))
    return VerifyFrame(name, image, None if truth is None else truth.astype(np.uint8))
