"""The interface of runners. ``vmkla.engines`` implements it; ``vmkla.segment`` and ``vmkla.video`` use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.metadata import ArtefactMetadata
from vmkla.segment.operating_point import CLINICAL_MIN_FRACTION, OperatingPoint, PointOverrides

if TYPE_CHECKING:
    from typing_extensions import Self


NO_POINT = (
    "the model states no operating point: without --peak and --min-fraction every region counts as a "
    "finding, however faint and small; eval and verify count those of at least "
    f"{100 * CLINICAL_MIN_FRACTION:g} % of the field of view (vmkla tune fits a point)"
)
"""Warning for a model that states a threshold only."""


@dataclass(frozen=True)
class RunnerSpec:
    """Input, output and identity of a loaded model.

    Attributes:
        height, width: input size in pixels.
        batch: the fixed batch size, or None when every size is accepted.
        num_classes: output channels.
        metadata: metadata of the model file.
        path: path of the model file.
        sha256: hex digest of the file's bytes.
        runtime: runtime and version, for instance ``"onnxruntime 1.32.0"``.
        device: ``"cpu"`` or ``"cuda:0"``.
        kernels: ``"native"`` when vmkla's own CPU kernels run the custom nodes, ``"plugin"`` when its
            CUDA kernels do, ``"bodies"`` when their function bodies do, ``"torch"`` for the PyTorch runner.
        notes: further facts about how it runs, for people.
        unverified_because: why the model is unverified; None when it is verified, or when the reason is that
            its export was not checked.
    """

    height: int
    width: int
    batch: int | None
    num_classes: int
    metadata: ArtefactMetadata
    path: str
    sha256: str
    runtime: str
    device: str
    kernels: str
    notes: tuple[str, ...] = ()
    unverified_because: str | None = None

    @property
    def operating_point(self) -> OperatingPoint:
        """The rule by which a region counts as a finding, as the model states it.

        A model that states a threshold only keeps every region.
        """
        return self.metadata.operating_point or OperatingPoint(self.metadata.threshold)

    def point_at(self, overrides: PointOverrides) -> OperatingPoint:
        """Return the model's operating point with other values.

        Raises:
            UsageError: they do not fit the model's own, or a threshold is given and the model has several
                classes.
        """
        if overrides.threshold is not None and self.num_classes > 1:
            raise UsageError(
                f"a threshold was given, but {self.path} has {self.num_classes} classes: each pixel takes "
                "its most probable one",
                hint="Leave --threshold out.",
            )
        return overrides.on(self.operating_point)


class Runner(Protocol):
    """A loaded network, ready to run; leaving its ``with`` block closes it."""

    @property
    def name(self) -> str:
        """Short name: ``onnxruntime``, ``tensorrt``, ``tensorrt-rtx`` or ``torch``."""

    @property
    def spec(self) -> RunnerSpec:
        """Input, output and identity of the model."""

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the probabilities of a batch.

        Args:
            frames_rgb: (n, height, width, 3) uint8, RGB, already preprocessed.
        Returns:
            (n, num_classes, height, width) float32 probability, 0 to 1.
        Raises:
            ShapeError: the batch has another shape or type.
        """

    def close(self) -> None:
        """Release all resources; a second call does nothing."""

    def __enter__(self) -> Self:
        """Return the runner itself."""

    def __exit__(self, *_: object) -> None:
        """Close the runner."""


class ClosedOnExit:
    """Mixin that makes a class with ``close`` a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release all resources; a second call does nothing."""
        raise NotImplementedError


def check_one_by_one(spec: RunnerSpec) -> None:
    """Reject a network that cannot run frames one by one.

    Raises:
        ArtefactMismatchError: the model has a fixed batch larger than 1.
    """
    if spec.batch not in (None, 1):
        raise ArtefactMismatchError(
            f"{spec.path} takes a fixed batch of {spec.batch}, and frames come one by one",
            hint=f"Run: vmkla build again with --profile 1,1,{spec.batch}, from a file that `vmkla export "
            "--batch dynamic` wrote"
            if spec.path.endswith(".plan")
            else "Run: vmkla export again with --batch dynamic or --batch 1",
        )


def describe_model(runner: Runner) -> dict[str, Any]:
    """Describe the model, for the report."""
    spec = runner.spec
    metadata = spec.metadata
    return {
        "path": Path(spec.path).name,
        "sha256": spec.sha256,
        "weights_sha256": metadata.weights_sha256,
        "name": metadata.model_config.get("name"),
        "class_names": list(metadata.class_names),
        "input_hw": [spec.height, spec.width],
        "precision": metadata.precision,
        "random_weights": metadata.random_weights,
        "verified": metadata.verified,
        "vmkla_version": metadata.vmkla_version,
    }


def describe_runtime(runner: Runner) -> dict[str, Any]:
    """Describe what runs the model, for the report."""
    spec = runner.spec
    return {
        "runner": runner.name,
        "version": spec.runtime,
        "device": spec.device,
        "kernels": spec.kernels,
        "notes": list(spec.notes),
    }


def model_warnings(runner: Runner) -> list[str]:
    """Return the warnings that the user must see whenever the model is used."""
    metadata = runner.spec.metadata
    warnings = []
    if metadata.random_weights:
        warnings.append("the model's weights are random: its findings mean nothing")
    if not metadata.verified:
        reason = runner.spec.unverified_because
        why = reason or "the check that ends its export was skipped or not passed"
        warnings.append(f"the model is unverified: {why}")
    if metadata.operating_point is None and not metadata.random_weights:
        warnings.append(NO_POINT)
    return warnings
