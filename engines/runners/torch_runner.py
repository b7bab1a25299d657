"""The runner for PyTorch, for parity checks. Only this module of engines imports torch, when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.cpus import torch_threads
from vmkla.engines.runners.batches import check_batch
from vmkla.errors import ArtefactMismatchError, VmklaError
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import ClosedOnExit, RunnerSpec

if TYPE_CHECKING:
    from vmkla.models.vmkla_unet import VMKLAUNet


class TorchRunner(ClosedOnExit):
    """Run a network in PyTorch, in eager mode.

    Args:
        model: the network; it is set to evaluation mode.
        metadata: metadata of an artefact made from the network.
        path: path of the weights, for messages.
        sha256: hex digest of that file; empty without one.
        device: ``"cpu"`` or ``"cuda:0"``.
        threads: CPU threads of torch, for the whole process; None leaves them, within the affinity and the
            quota of this process.
        notes: further facts, for people.
    Raises:
        MissingDependencyError: torch or the device is missing.
    """

    name = "torch"

    def __init__(
        self,
        model: VMKLAUNet,
        metadata: ArtefactMetadata,
        *,
        path: str = "",
        sha256: str = "",
        device: str = "cpu",
        threads: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        torch = require("torch", extra="train", purpose="the PyTorch runner")
        from vmkla.models import serving

        serving.check_device(device)
        torch.set_num_threads(torch_threads(threads, torch.get_num_threads()))
        self._torch = torch
        self._module: Any = serving.FramesToProbability(model, model.config.num_classes).eval().to(device)
        self._spec = RunnerSpec(
            height=metadata.preprocess.height,
            width=metadata.preprocess.width,
            batch=None,
            num_classes=model.config.num_classes,
            metadata=metadata,
            path=path,
            sha256=sha256,
            runtime=f"torch {torch.__version__}",
            device=device,
            kernels="torch",
            notes=notes,
        )

    @classmethod
    def from_file(
        cls, path: Path, *, device: str = "cpu", threads: int | None = None, backend: str = "auto"
    ) -> TorchRunner:
        """Load a ``.safetensors`` file that ``vmkla train`` wrote.

        Raises:
            ArtefactMismatchError: the file does not state the size that it was trained at.
        """
        require("torch", extra="train", purpose="the PyTorch runner")
        from vmkla.models import checkpoints, serving

        loaded = checkpoints.load_weights(path, backend=backend)
        if loaded.preprocess is None:
            raise ArtefactMismatchError(
                f"{path} does not state the size that it was trained at",
                hint=f"Run: vmkla export --model {path} --imgsz H,W --output model.onnx, and use that file",
            )
        metadata = ArtefactMetadata(
            model_config=loaded.config.to_dict(),
            class_names=loaded.class_names,
            threshold=loaded.threshold,
            preprocess=loaded.preprocess,
            weights_sha256=serving.weights_sha256(loaded.model),
            training=loaded.training,
            operating_point=loaded.operating_point,
            tuning=loaded.tuning,
        )
        return cls(
            loaded.model,
            metadata,
            path=str(path),
            sha256=loaded.sha256,
            device=device,
            threads=threads,
            notes=loaded.notes,
        )

    @property
    def spec(self) -> RunnerSpec:
        """Input, output and identity of the model."""
        return self._spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, height, width, 3) uint8 RGB -> (n, classes, height, width) float32 probability.

        Raises:
            ShapeError: the batch has another shape or type.
            VmklaError: the runner is closed.
        """
        check_batch(frames_rgb, self._spec)
        if self._module is None:
            raise VmklaError("the runner is closed")
        with self._torch.inference_mode():
            frames = self._torch.from_numpy(np.array(frames_rgb)).to(self._spec.device)
            probability: npt.NDArray[np.float32] = self._module(frames).cpu().numpy()
        return probability

    def close(self) -> None:
        """Release the network; a second call does nothing."""
        self._module = None
