"""PyTorch to one verified ONNX file."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vmkla import __version__
from vmkla.engines.gates import FP32_EXPORT, GateReport
from vmkla.engines.onnxruntime_runner import Kernels, OnnxRuntimeRunner
from vmkla.engines.torch_runner import TorchRunner
from vmkla.engines.verify import Comparison, check, compare
from vmkla.errors import BadInputError, GateError, ShapeError, UsageError
from vmkla.export import bodies, graph, storage
from vmkla.export.translations import BSPLINE, SCAN, translation_table
from vmkla.files import file_sha256
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata
from vmkla.preprocess import PreprocessSpec

if TYPE_CHECKING:
    import onnx

    from vmkla.models.vmkla_unet import VMKLAUNet

logger = logging.getLogger(__name__)

RENDERED_FRAMES = 3
DYNAMIC_BATCH = 2
"""Frames at once when a file with a dynamic batch is checked: a mixed-up batch is seen."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it was checked.

    Attributes:
        path: the file.
        sha256: of its bytes.
        size_bytes: its length.
        metadata: what it says of itself.
        comparisons: one for each way to run the custom nodes; empty when the gates were skipped.
        gates: verdicts, in the same order.
    """

    path: Path
    sha256: str
    size_bytes: int
    metadata: ArtefactMetadata
    comparisons: tuple[Comparison, ...]
    gates: tuple[GateReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "gates": self.metadata.gates,
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }


def export_onnx(
    model: VMKLAUNet,
    *,
    spec: PreprocessSpec,
    output: Path,
    batch: Literal["dynamic"] | int = "dynamic",
    class_names: Sequence[str] = ("polyp",),
    threshold: float = 0.5,
    training: Mapping[str, Any] | None = None,
    random_weights: bool = False,
    frames: npt.NDArray[np.uint8] | None = None,
    skip_gates: bool = False,
    half_storage: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write a network as one ONNX file, and check the file before it gets its name.

    The network in PyTorch is held against the file in ONNX Runtime twice: its custom nodes run by
    vmkla's kernels, and by the function bodies inside it.

    Args:
        model: the network; it is not changed.
        spec: preprocessing, which fixes the input's height and width.
        output: the file to write; its folder is made when missing.
        batch: ``"dynamic"``, or a fixed number of frames.
        class_names: one per output channel.
        threshold: probability at and above which a pixel belongs to the mask, 0 to 1.
        training: summary of the training data and run.
        random_weights: the weights were never trained: probability errors alone decide.
        frames: (n, height, width, 3) uint8 RGB, preprocessed, to check with; None renders some.
        skip_gates: do not check; the file says that it is unverified.
        half_storage: store weights as float16 (see ``storage``); they are rounded to it first.
        progress: called with a line at each step.
    Returns:
        What was written.
    Raises:
        GateError: a check failed; nothing is left under the file's name.
        ShapeError: height or width do not suit the network, or the frames do not fit them.
        UsageError: batch, class names or threshold make no sense.
        BadInputError: the file cannot be written.
        MissingDependencyError: a package that export needs is absent.
    """
    say = progress or logger.info
    _check_arguments(model, spec, batch, class_names, threshold, frames)
    serving = require("vmkla.models.serving", extra="export", purpose="vmkla export")
    model = copy.deepcopy(model).cpu().float().eval()
    if half_storage:
        storage.round_to_half(model)
    metadata = ArtefactMetadata(
        model_config=model.config.to_dict(),
        class_names=tuple(class_names),
        threshold=threshold,
        preprocess=spec,
        weights_sha256=serving.weights_sha256(model),
        training=dict(training or {}),
        random_weights=random_weights,
        gates={"skipped": True} if skip_gates else {},
    )
    say(f"tracing {model.config.name} at {spec.height}x{spec.width}")
    proto = build_onnx(model, spec.height, spec.width, batch)
    if half_storage:
        storage.store_half(proto)
    comparisons: list[Comparison] = []
    reports: list[GateReport] = []
    with _temporary_beside(output) as partial:
        _write(proto, metadata, partial)
        if not skip_gates:
            checked = _rendered_frames(spec) if frames is None else frames
            gates = FP32_EXPORT.without_masks() if random_weights else FP32_EXPORT
            reference = TorchRunner(model, metadata)
            for kernels in ("native", "bodies"):
                comparison = _compare_file(reference, partial, checked, kernels)
                report = check(comparison, gates)
                comparisons.append(comparison)
                reports.append(report)
                say(_line(comparison, report, masks=not random_weights))
            _refuse_failures(output, reports)
            metadata = dataclasses.replace(metadata, gates=_gates_metadata(reports, checked, frames is None))
            _write(proto, metadata, partial)
        sha256, size = file_sha256(partial), partial.stat().st_size
        try:
            os.replace(partial, output)
        except OSError as error:
            raise BadInputError(f"{output} cannot be written: {error.strerror}") from error
    return ExportReport(output, sha256, size, metadata, tuple(comparisons), tuple(reports))


def build_onnx(model: VMKLAUNet, height: int, width: int, batch: Literal["dynamic"] | int) -> onnx.ModelProto:
    """The graph that goes into the file with its function bodies, metadata apart.

    Args:
        model: in evaluation mode, float32, on the CPU.
        height, width: of the input, px.
        batch: ``"dynamic"``, or a fixed number of frames.
    """
    proto = trace(model, height, width, batch)
    append_functions(proto)
    return proto


def trace(model: VMKLAUNet, height: int, width: int, batch: Literal["dynamic"] | int) -> onnx.ModelProto:
    """The tidied graph of ``ExportModule``, its custom nodes without bodies. Arguments as ``build_onnx``."""
    torch = require("torch", extra="export", purpose="vmkla export")
    require("onnxscript", extra="export", purpose="vmkla export")
    wrapper = require("vmkla.export.wrapper", extra="export", purpose="vmkla export")
    dynamic = batch == "dynamic"
    example = wrapper.example_frames(DYNAMIC_BATCH if dynamic else batch, height, width)
    shapes = {"frames": {0: torch.export.Dim("n")}} if dynamic else None
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            wrapper.ExportModule(model),
            (example,),
            dynamo=True,
            custom_translation_table=translation_table(),
            opset_version=bodies.OPSET,
            input_names=[wrapper.INPUT],
            output_names=[wrapper.OUTPUT],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    graph.fold_constants(program.model)
    proto: onnx.ModelProto = program.model_proto
    graph.open_elu(proto)
    graph.give_names(proto)
    proto.producer_name = "vmkla"
    proto.producer_version = __version__
    return proto


def append_functions(proto: onnx.ModelProto) -> None:
    """Add the bodies of the custom nodes that the graph has."""
    onnx = require("onnx", extra="export", purpose="vmkla export")
    used = {node.op_type for node in proto.graph.node if node.domain == bodies.DOMAIN}
    if SCAN in used:
        proto.functions.append(bodies.scan_body())
    if BSPLINE in used:
        attributes = [
            {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            for node in proto.graph.node
            if node.op_type == BSPLINE
        ]
        orders = {values["order"] for values in attributes}
        if len(orders) != 1:
            raise UsageError(f"splines of orders {sorted(orders)} in one network; one order is expected")
        uniform = all(values["uniform"] for values in attributes)
        proto.functions.append(bodies.bspline_body(orders.pop(), uniform=uniform))


def _check_arguments(
    model: VMKLAUNet,
    spec: PreprocessSpec,
    batch: Literal["dynamic"] | int,
    class_names: Sequence[str],
    threshold: float,
    frames: npt.NDArray[np.uint8] | None,
) -> None:
    model.config.check_input(spec.height, spec.width)
    if str(batch) != "dynamic" and not (isinstance(batch, int) and batch >= 1):
        raise UsageError(f"batch is {batch!r}, expected 'dynamic' or a number of at least 1")
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


def _compare_file(
    reference: TorchRunner, path: Path, frames: npt.NDArray[np.uint8], kernels: Kernels
) -> Comparison:
    # The file is not verified yet, which is what its runner would warn of.
    candidate = OnnxRuntimeRunner(path, kernels=kernels, warn_unverified=False)
    try:
        return compare(reference, candidate, frames, batch=DYNAMIC_BATCH)
    finally:
        candidate.close()


def _refuse_failures(output: Path, reports: Sequence[GateReport]) -> None:
    failures = [
        f"with {report.measured['candidate']}: {failure}" for report in reports for failure in report.failures
    ]
    if failures:
        raise GateError(
            f"the exported network does not compute what PyTorch computes, so {output} was not written: "
            + "; ".join(failures),
            hint="Look at the figures; --skip-gates writes the file nevertheless, marked unverified.",
        )


def _gates_metadata(
    reports: Sequence[GateReport], frames: npt.NDArray[np.uint8], rendered: bool
) -> dict[str, Any]:
    return {
        "passed": all(report.passed for report in reports),
        "frames": len(frames),
        "rendered": rendered,
        "checks": [report.to_dict() for report in reports],
    }


def _line(comparison: Comparison, report: GateReport, *, masks: bool) -> str:
    dice = (
        f", mask Dice mean {comparison.mean_dice:.5f} worst {comparison.worst_dice:.5f}"
        f" ({comparison.empty_frames} of {comparison.frames} frames without a mask)"
    )
    return (
        f"{comparison.candidate} against {comparison.reference}: probability error max "
        f"{comparison.max_error:.2e} mean {comparison.mean_error:.2e}{dice if masks else ''}: "
        f"{'passed' if report.passed else 'FAILED'}"
    )


def _rendered_frames(spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    clip = require("vmkla.video.clip", extra="export", purpose="rendering frames to check with")
    rendered = clip.render_clip(seed=0, height=spec.height, width=spec.width, frames=RENDERED_FRAMES)
    return np.stack([rgb for rgb, _ in rendered])


def _write(proto: onnx.ModelProto, metadata: ArtefactMetadata, path: Path) -> None:
    onnx = require("onnx", extra="export", purpose="vmkla export")
    onnx.helper.set_model_props(proto, metadata.to_props())
    try:
        with path.open("wb") as file:
            file.write(proto.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def _temporary_beside(output: Path) -> Iterator[Path]:
    """A name in the same folder, removed at the end whatever happens."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"the folder {output.parent} cannot be made: {error.strerror}") from error
    if os.path.isdir(output):  # Path.is_dir raises for a name that is too long
        raise BadInputError(f"{output} is a folder, expected the name of a file to write")
    try:
        yield partial
    finally:
        with suppress(OSError):  # already in its place, or a name that could not be written at all
            partial.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes to developers (absent torchvision, deprecations of its own) off stderr."""
    noisy = logging.getLogger("torch.onnx._internal.exporter")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(before)
