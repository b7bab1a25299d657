"""Export a network as one verified ONNX file."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.onnx_file import with_metadata
from vmkla.engines.verify.comparison import Comparison
from vmkla.engines.verify.gate_frames import rendered_frames
from vmkla.engines.verify.gates import GateReport
from vmkla.errors import ShapeError, UsageError
from vmkla.export import checks, half, storage, tracing
from vmkla.export.form import Batch, GraphForm, check_batch
from vmkla.export.half_range import HalfRangeReport
from vmkla.files import file_sha256, written_whole
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata, InputType, Precision
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec

if TYPE_CHECKING:
    import onnx

    from vmkla.models.vmkla_unet import VMKLAUNet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportReport:
    """The exported file and the results of its checks.

    Attributes:
        path: the file.
        sha256: hex digest of the file's bytes.
        size_bytes: size of the file.
        metadata: metadata of the file.
        comparisons: one for each way to run the network; empty when the gates were skipped.
        gates: verdict on each comparison, in the same order.
        half_range: largest magnitudes in a half-precision graph; None for a float32 graph, and when the gates
            were skipped.
    """

    path: Path
    sha256: str
    size_bytes: int
    metadata: ArtefactMetadata
    comparisons: tuple[Comparison, ...]
    gates: tuple[GateReport, ...]
    half_range: HalfRangeReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "precision": self.metadata.precision,
            "input_type": self.metadata.input_type,
            "profile": self.metadata.profile,
            "gates": self.metadata.gates,
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }


def export_onnx(
    model: VMKLAUNet,
    *,
    spec: PreprocessSpec,
    output: Path,
    batch: Batch = "dynamic",
    precision: Precision = "fp32",
    input_type: InputType = "uint8",
    class_names: Sequence[str] = ("polyp",),
    threshold: float = 0.5,
    operating_point: OperatingPoint | None = None,
    training: Mapping[str, Any] | None = None,
    random_weights: bool = False,
    frames: npt.NDArray[np.uint8] | None = None,
    skip_gates: bool = False,
    half_storage: bool = False,
    progress: Callable[[str], None] | None = None,
    on_step: checks.OnStep | None = None,
) -> ExportReport:
    """Write a network as one ONNX file, and check the file before it gets its name.

    The network in PyTorch in float32 is compared with the file in ONNX Runtime twice: its custom nodes run by
    vmkla's kernels, and by the function bodies inside it. In a half-precision file, all tensors must also be
    far from the end of half's range, and the network in half in PyTorch is compared too.

    Args:
        model: the network; it is not changed.
        spec: preprocessing, with the input's height and width.
        output: the file to write; its folder is made when missing.
        batch: ``"dynamic"``, a fixed number of frames, or (min, opt, max): dynamic, and engines are built
            for these.
        precision: ``"fp32"``, or ``"fp16"`` for a strongly typed half-precision graph.
        input_type: ``"uint8"`` frames (n, H, W, 3), or ``"float32"`` (n, 3, H, W) of 0 to 255 for
            pipelines that feed floats.
        class_names: name of each output channel.
        threshold: lowest probability of a pixel that belongs to the mask, 0 to 1.
        operating_point: the rule by which a region counts as a finding, with the same threshold; None states
            none.
        training: summary of the training data and run.
        random_weights: the weights were never trained, so only probability errors are judged.
        frames: (n, height, width, 3) uint8 RGB, preprocessed, to check with; None renders some.
        skip_gates: do not check; the file is marked unverified.
        half_storage: store the weights of a float32 graph as float16 (see ``storage``), rounded first.
        progress: called with a line at each step.
        on_step: called when a step begins; see ``checks.OnStep``.
    Returns:
        The file and the results of its checks.
    Raises:
        GateError: a check failed; nothing is left under the file's name.
        ShapeError: the network does not take that height or width, or the frames have another size.
        UsageError: batch, class names, threshold or the file's suffix make no sense, or half storage is
            combined with half precision.
        BadInputError: the file cannot be written.
        MissingDependencyError: a package that export needs is missing.
    """
    say = progress or logger.info
    begin = checks.Steps(checks.step_count(precision, checked=not skip_gates), on_step).begin
    _check_arguments(model, spec, batch, class_names, threshold, frames)
    if output.suffix != ".onnx":
        raise UsageError(
            f"the output is {output}, expected a name that ends in .onnx",
            hint="vmkla build makes an engine of an ONNX file.",
        )
    if half_storage and precision == "fp16":
        raise UsageError(
            "half storage is for a float32 graph; a half-precision graph has half weights already",
            hint="Leave out --half-storage, or --precision fp16.",
        )
    require("torch", extra="export", purpose="vmkla export")
    from vmkla.models.serving import weights_sha256

    model = copy.deepcopy(model).cpu().float().eval()
    if half_storage:
        storage.round_to_half(model)
    shown = rendered_frames(spec) if frames is None else frames
    form = GraphForm(spec.height, spec.width, batch, precision, input_type)
    if precision == "fp16":
        begin("looking for large values")
        beyond = half.scans_beyond_half(model, shown)
        form = dataclasses.replace(form, wide_scans=tuple(beyond))
        say(half.describe_wide(beyond))
    metadata = ArtefactMetadata(
        model_config=model.config.to_dict(),
        class_names=tuple(class_names),
        threshold=threshold,
        operating_point=operating_point,
        preprocess=spec,
        weights_sha256=weights_sha256(model),
        training=dict(training or {}),
        random_weights=random_weights,
        gates={"skipped": True} if skip_gates else {},
        precision=precision,
        input_type=input_type,
        profile=form.profile,
    )
    say(f"tracing {model.config.name} at {spec.height}x{spec.width} in {precision}")
    begin("tracing")
    proto = tracing.build_onnx(model, form)
    if half_storage:
        storage.store_half(proto)
    checked: checks.Checked | None = None
    with written_whole(output, private=False) as file:
        partial = Path(file.name)
        _write(proto, metadata, file)
        if not skip_gates:
            checked = checks.check_file(
                partial, proto, model, form, metadata, shown, rendered=frames is None, say=say, begin=begin
            )
            checks.raise_failures(output, checked)
            answer = checks.self_test_answer(partial)
            metadata = dataclasses.replace(metadata, gates=checked.to_metadata(), self_test=answer)
            _write(proto, metadata, file)
    sha256, size = file_sha256(output), output.stat().st_size
    if checked is None:
        return ExportReport(output, sha256, size, metadata, (), ())
    return ExportReport(
        output, sha256, size, metadata, checked.comparisons, checked.gates, checked.half_range
    )


def _check_arguments(
    model: VMKLAUNet,
    spec: PreprocessSpec,
    batch: Batch,
    class_names: Sequence[str],
    threshold: float,
    frames: npt.NDArray[np.uint8] | None,
) -> None:
    model.config.check_input(spec.height, spec.width)
    check_batch(batch)
    if len(class_names) != model.config.num_classes:
        raise UsageError(f"{len(class_names)} class names for {model.config.num_classes} output channels")
    if not 0.0 < threshold < 1.0:
        raise UsageError(f"threshold is {threshold}, expected a number between 0 and 1")
    expected = ("uint8", (spec.height, spec.width, 3))
    if frames is not None and ((str(frames.dtype), frames.shape[1:]) != expected or len(frames) == 0):
        raise ShapeError(
            f"frames must be uint8 (n, {spec.height}, {spec.width}, 3) with n at least 1, "
            f"got {frames.dtype} {frames.shape}"
        )


def _write(proto: onnx.ModelProto, metadata: ArtefactMetadata, file: BinaryIO) -> None:
    """Write the graph with its metadata, in place of what the file holds."""
    file.seek(0)
    file.truncate()
    file.write(with_metadata(proto.SerializeToString(), metadata.to_props()))
    file.flush()  # the checks read it by its name
