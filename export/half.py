"""Run a network in half precision, and find the scans that half precision cannot represent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.batches import check_batch, network_input
from vmkla.export.form import GraphForm
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import ClosedOnExit, RunnerSpec

if TYPE_CHECKING:
    from vmkla.models.vmkla_unet import VMKLAUNet

HALF_MAX = 65504.0
"""Largest number in half precision."""
RANGE_LIMIT = HALF_MAX / 4
"""Largest allowed magnitude of a half tensor: other frames give larger ones, and partial sums may exceed the
result."""
WIDE_FROM = RANGE_LIMIT / 16
"""A scan whose result exceeds this runs in float32. The norm behind it hides the magnitude from the rest of
the network, so training does not limit it, and it grows with the image."""


def scans_beyond_half(model: VMKLAUNet, frames: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Find the scans whose results come near the end of half's range, with their largest magnitude.

    Args:
        model: the network, float32, in evaluation mode, on the CPU.
        frames: (n, height, width, 3) uint8 RGB, preprocessed.
    """
    torch = require("torch", extra="export", purpose="vmkla export")
    from vmkla.models.serving import FramesToProbability
    from vmkla.models.ss2d import SS2D

    largest: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: Any, y: Any) -> None:
            seen = float(y.abs().amax())
            largest[name] = max(largest.get(name, 0.0), math.inf if math.isnan(seen) else seen)

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, SS2D)
    ]
    try:
        served = FramesToProbability(model, model.config.num_classes).eval()
        with torch.inference_mode():
            for frame in frames:
                served(torch.from_numpy(np.array(frame[None])))
    finally:
        for handle in handles:
            handle.remove()
    return {name: value for name, value in largest.items() if value > WIDE_FROM}


class HalfTorchRunner(ClosedOnExit):
    """Runner of the traced module, in PyTorch on the CPU.

    Every tensor between two operations is rounded to half, and values beyond its range become infinite, as on
    a GPU. (ONNX Runtime has few half kernels on a CPU and runs the rest in float32.)

    Args:
        model: the network, float32; it is not changed.
        form: form of the half-precision graph.
        metadata: metadata of its file.
        widened: compute in float32 with the half weights.
    """

    name = "torch"

    def __init__(
        self, model: VMKLAUNet, form: GraphForm, metadata: ArtefactMetadata, *, widened: bool = False
    ) -> None:
        self._torch = require("torch", extra="export", purpose="vmkla export")
        from vmkla.export.wrapper import ExportModule

        module = ExportModule(model, form).eval()
        self._module: Any = module.widened() if widened else module
        self._spec = RunnerSpec(
            height=form.height,
            width=form.width,
            batch=None,
            num_classes=model.config.num_classes,
            metadata=metadata,
            path="",
            sha256="",
            runtime=f"torch {self._torch.__version__}",
            device="cpu",
            kernels="widened" if widened else "half",
        )

    @property
    def spec(self) -> RunnerSpec:
        """Inputs, outputs and identity of the model."""
        return self._spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute float32 probabilities (n, classes, height, width) of uint8 frames (n, height, width, 3).

        Raises:
            ShapeError: the batch has another shape or type.
        """
        check_batch(frames_rgb, self._spec)
        with self._torch.inference_mode():
            frames = self._torch.from_numpy(network_input(frames_rgb, self._spec.metadata.input_type).copy())
            probability: npt.NDArray[np.float32] = self._module(frames).numpy()
        return probability

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def describe_wide(scans: Mapping[str, float]) -> str:
    """Describe the scans that stay float32 in one line."""
    listed = ", ".join(f"{name} ({value:.3g})" for name, value in scans.items())
    return f"scans whose results pass {WIDE_FROM:g} and run in float32: {listed or 'none'}"
