"""A network that needs no weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.metadata import ArtefactMetadata
from vmkla.runner import RunnerSpec
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec

Image = npt.NDArray[np.uint8]


class RedRunner:
    """A stand-in for the network: the probability of a pixel is its red channel.

    With several classes the channels red, green, blue are shared out so that they sum to one.
    """

    name = "red"

    def __init__(
        self, height: int = 32, width: int = 48, *, classes: int = 1, roi: Any = "none", **changes: Any
    ) -> None:
        metadata = ArtefactMetadata(
            model_config={"name": "red"},
            class_names=tuple(f"class{index}" for index in range(classes)),
            threshold=0.5,
            operating_point=OperatingPoint(0.5),
            preprocess=PreprocessSpec(height, width, roi),
            weights_sha256="0" * 64,
            gates={"passed": True},
        )
        values: dict[str, Any] = {
            "height": height,
            "width": width,
            "batch": None,
            "num_classes": classes,
            "metadata": metadata,
            "path": "red.onnx",
            "sha256": "1" * 64,
            "runtime": "numpy",
            "device": "cpu",
            "kernels": "native",
        }
        self.spec = RunnerSpec(**{**values, **changes})
        self.calls = 0
        self.fail_at: int | None = None

    def infer(self, frames_rgb: Image) -> npt.NDArray[np.float32]:
        assert frames_rgb.shape == (1, self.spec.height, self.spec.width, 3)
        if self.calls == self.fail_at:
            raise RuntimeError("the accelerator fell off the bus")
        self.calls += 1
        planes = frames_rgb.astype(np.float32).transpose(0, 3, 1, 2)  # (1, 3, h, w)
        if self.spec.num_classes == 1:
            return planes[:, :1] / 255
        shares = planes[:, : self.spec.num_classes] + 1e-3
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)

    def close(self) -> None:
        self.calls = 0
