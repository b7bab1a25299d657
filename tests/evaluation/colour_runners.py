"""Networks whose output is the red channel of their input, and images made for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.metadata import ArtefactMetadata
from vmkla.runner import RunnerSpec
from vmkla.segment.preprocess import PreprocessSpec

Image = npt.NDArray[np.uint8]
RED_PER_CLASS = 30
"""Red of class k is k times this."""


@dataclass(frozen=True)
class Labelled:
    """An image and its truth."""

    name: str
    image_rgb: Image
    mask: Image
    group: str = ""
    prepared: PreprocessSpec | None = None


class _Runner:
    name = "red"

    def __init__(
        self, height: int, width: int, names: tuple[str, ...], *, roi: str = "none", batch: int | None = None
    ) -> None:
        metadata = ArtefactMetadata(
            model_config={"name": "red"},
            class_names=names,
            threshold=0.5,
            preprocess=PreprocessSpec(height, width, roi),
            weights_sha256="0" * 64,
        )
        self.spec = RunnerSpec(
            height, width, batch, len(names), metadata, "red.onnx", "1" * 64, "numpy", "cpu", "native"
        )

    def close(self) -> None:
        """Nothing to release."""

    def _red(self, frames_rgb: Image) -> npt.NDArray[np.float32]:
        assert frames_rgb.shape == (self.spec.batch or 1, self.spec.height, self.spec.width, 3)
        return frames_rgb[..., 0][:, None].astype(np.float32)  # (n, 1, h, w)


class RedRunner(_Runner):
    """A network whose probability of a polyp is its red channel over 255."""

    def __init__(self, height: int, width: int, *, roi: str = "none", batch: int | None = None) -> None:
        super().__init__(height, width, ("polyp",), roi=roi, batch=batch)

    def infer(self, frames_rgb: Image) -> npt.NDArray[np.float32]:
        """(n, h, w, 3) -> (n, 1, h, w)."""
        return self._red(frames_rgb) / np.float32(255)


class ClassRunner(_Runner):
    """A network of several classes that is sure of one: the red channel over ``RED_PER_CLASS``."""

    def infer(self, frames_rgb: Image) -> npt.NDArray[np.float32]:
        """(n, h, w, 3) -> (n, classes, h, w)."""
        nearest = np.rint(self._red(frames_rgb) / RED_PER_CLASS)
        return (nearest == np.arange(self.spec.num_classes)[:, None, None]).astype(np.float32)


class UnsureRunner(_Runner):
    """A network of several classes that is more or less sure of one.

    The class is the red channel over ``RED_PER_CLASS``. Its probability grows with the green channel, from
    just above that of each other class to 1.
    """

    def infer(self, frames_rgb: Image) -> npt.NDArray[np.float32]:
        """(n, h, w, 3) -> (n, classes, h, w)."""
        classes = self.spec.num_classes
        chosen = np.rint(self._red(frames_rgb) / RED_PER_CLASS) == np.arange(classes)[:, None, None]
        sure = (1 + frames_rgb[..., 1][:, None].astype(np.float32)) / np.float32(256)
        other = (1 - sure) / classes
        return np.where(chosen, other + sure, other).astype(np.float32)


def picture(red: npt.NDArray[np.generic]) -> Image:
    """Make an image with red 255 in a mask (bool), or the red of each class (integers)."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*red.shape, 3)).astype(np.uint8)
    image[..., 0] = np.where(red, 255, 0) if red.dtype == np.bool_ else red.astype(int) * RED_PER_CLASS
    return image


def labelled(
    name: str, prediction: npt.NDArray[np.generic], truth: npt.NDArray[np.generic], group: str = ""
) -> Labelled:
    """An image in which a runner of its size finds the prediction."""
    return Labelled(name, picture(prediction), truth.astype(np.uint8), group)
