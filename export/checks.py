"""Check an exported file before it gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.onnx_file import with_metadata
from vmkla.engines.runners.onnxruntime_runner import Kernels, OnnxRuntimeRunner
from vmkla.engines.runners.torch_runner import TorchRunner
from vmkla.engines.verify.comparison import Comparison, check, compare, gates_record
from vmkla.engines.verify.gates import FP16_EXPORT, FP32_EXPORT, HALF_ARITHMETIC, GateReport, Gates
from vmkla.errors import BadInputError, GateError
from vmkla.export import half_range
from vmkla.export.form import DYNAMIC_BATCH, GraphForm
from vmkla.export.half import HalfTorchRunner
from vmkla.export.half_range import HalfRangeReport
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import Runner
from vmkla.segment.self_test import known_output

if TYPE_CHECKING:
    import onnx

    from vmkla.models.vmkla_unet import VMKLAUNet

KERNELS: tuple[Kernels, ...] = ("native", "bodies")


OnStep = Callable[[int, int | None, str], None]
"""Called with the number of finished steps, the number of all steps, and the name of the one that begins."""


class Steps:
    """Count and report the steps of an export, which take about the same time each.

    Args:
        total: number of steps.
        on_step: see ``OnStep``; None reports nothing.
    """

    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self._total, self._on_step, self._begun = total, on_step, 0

    def begin(self, name: str) -> None:
        """Report that a step begins and the one before it has ended."""
        if self._on_step is not None:
            self._on_step(self._begun, self._total, name)
        self._begun += 1


def step_count(precision: str, *, checked: bool) -> int:
    """Return the number of steps of an export: tracing and each check."""
    if precision != "fp16":
        return 1 + len(KERNELS) * checked
    return 2 + (2 + 2 * len(KERNELS)) * checked  # range; arithmetic, rounding and file, see ``check_file``


@dataclass(frozen=True)
class Checked:
    """Results of all checks of a file.

    Attributes:
        comparisons: one for each way to run the network.
        gates: verdict on each comparison, in the same order.
        half_range: magnitudes in a half-precision graph; None for a float32 graph.
        frames: number of frames that were run.
        rendered: the frames were rendered, not given.
    """

    comparisons: tuple[Comparison, ...]
    gates: tuple[GateReport, ...]
    half_range: HalfRangeReport | None
    frames: int
    rendered: bool

    @property
    def differences(self) -> tuple[str, ...]:
        """One line for each figure of a comparison that fails its gate."""
        return tuple(
            f"with {report.measured['candidate']}: {failure}"
            for report in self.gates
            for failure in report.failures
        )

    @property
    def beyond_half(self) -> tuple[str, ...]:
        """One line for each tensor beyond the limit in half precision."""
        return () if self.half_range is None else self.half_range.failures()

    def to_metadata(self) -> dict[str, Any]:
        """Plain values, for the file's metadata."""
        return gates_record(
            [report.to_dict() for report in self.gates],
            frames=self.frames,
            rendered=self.rendered,
            more=None if self.half_range is None else {"range": self.half_range.to_dict()},
        )


def check_file(
    path: Path,
    proto: onnx.ModelProto,
    model: VMKLAUNet,
    form: GraphForm,
    metadata: ArtefactMetadata,
    frames: npt.NDArray[np.uint8],
    *,
    rendered: bool,
    say: Callable[[str], None],
    begin: Callable[[str], None],
) -> Checked:
    """Compare a file with the network in PyTorch in float32.

    ONNX Runtime runs the file twice, its custom nodes by vmkla's kernels and by the bodies inside it. A
    half-precision file has more checks, since rounding would hide an exchanged route, and since ONNX Runtime
    computes most of it in float32 on a CPU, where nothing overflows:

    - range: no half tensor comes near the end of half's range (``half_range``);
    - arithmetic: widened to float32, the file computes what the half weights compute in PyTorch in float32,
      within the gates of a float32 file;
    - rounding: PyTorch in half and ONNX Runtime stay near the float32 network.

    Args:
        path: the file.
        proto: content of the file.
        model: the network, float32, in evaluation mode, on the CPU.
        form: form of the graph.
        metadata: metadata of the file.
        frames: (n, height, width, 3) uint8 RGB, preprocessed.
        rendered: whether the frames were rendered, for the record.
        say: called with a line for each check.
        begin: called with the name of each check.
    """
    half = form.precision == "fp16"
    measured = None
    if half:
        begin("measuring ranges")
        measured = half_range.measure_half_range(
            proto,
            frames,
            input_type=form.input_type,
            batch=form.fixed_batch,
            float32_scans=form.wide_scans,
        )
        say(_range_line(measured))
    reference = TorchRunner(model, metadata)
    pairs: list[tuple[Comparison, Gates]] = []

    def check_pair(reference: Runner, candidate: Runner, gates: Gates) -> None:
        begin(f"checking {candidate.name}")
        gates = gates.without_masks() if metadata.random_weights else gates
        comparison = _compare(reference, candidate, frames, gates)
        pairs.append((comparison, gates))
        say(_line(comparison, check(comparison, gates), form.height * form.width))

    if half:
        exact = HalfTorchRunner(model, form, metadata, widened=True)
        with _widened_beside(path, proto, metadata) as wide:
            for kernels in KERNELS:
                check_pair(
                    exact, _WidenedRunner(wide, kernels=kernels, warn_unverified=False), HALF_ARITHMETIC
                )
        check_pair(reference, HalfTorchRunner(model, form, metadata), FP16_EXPORT)
    for kernels in KERNELS:
        # The runner would warn that the file is not verified yet.
        candidate = OnnxRuntimeRunner(path, kernels=kernels, warn_unverified=False)
        check_pair(reference, candidate, FP16_EXPORT if half else FP32_EXPORT)
    comparisons = tuple(comparison for comparison, _ in pairs)
    reports = tuple(check(comparison, gates) for comparison, gates in pairs)
    return Checked(comparisons, reports, measured, len(frames), rendered)


def self_test_answer(path: Path) -> dict[str, Any]:
    """Return a verified file's output for the self-test, for its metadata."""
    with OnnxRuntimeRunner(path, warn_unverified=False) as runner:
        return known_output(runner)


def raise_failures(output: Path, checked: Checked) -> None:
    """Raise an error if a check failed.

    Raises:
        GateError: a check failed; the message lists all failures.
    """
    reasons = []
    hint = "Look at the figures; --skip-gates writes the file nevertheless, marked unverified."
    if checked.beyond_half:
        reasons.append("half precision has no room for this network: " + "; ".join(checked.beyond_half))
        hint = "Export it with --precision fp32."
    if checked.differences:
        reasons.append(
            "the exported network does not compute what PyTorch computes: " + "; ".join(checked.differences)
        )
    if reasons:
        raise GateError(f"{output} was not written: {'. Also, '.join(reasons)}", hint=hint)


class _WidenedRunner(OnnxRuntimeRunner):
    """Runner of a widened file, which has its own name in the report."""

    name = "widened onnxruntime"


@contextmanager
def _widened_beside(path: Path, proto: onnx.ModelProto, metadata: ArtefactMetadata) -> Iterator[Path]:
    """Write a widened copy of a half-precision file, and remove it after the block."""
    wide = path.with_name(f"{path.name}.wide")
    try:
        wide.write_bytes(with_metadata(half_range.widened(proto)[0].SerializeToString(), metadata.to_props()))
        yield wide
    except OSError as error:
        raise BadInputError(f"{wide} cannot be written: {error.strerror}") from error
    finally:
        wide.unlink(missing_ok=True)


def _compare(reference: Runner, candidate: Runner, frames: npt.NDArray[np.uint8], gates: Gates) -> Comparison:
    with candidate:
        return compare(reference, candidate, frames, batch=DYNAMIC_BATCH, spare_share=gates.spare_share)


def figures(comparison: Comparison, gates: Gates, pixels: int) -> str:
    """Format the judged figures of a comparison in one line.

    Args:
        comparison: the measured figures.
        gates: the gates; without limits on masks, their Dice is left out.
        pixels: number of pixels of a frame.
    """
    errors = (
        f"probability error max {comparison.max_error:.2e} mean {comparison.mean_error:.2e} "
        f"relative {comparison.relative_error:.2e}"
    )
    if gates.min_mean_dice is None:
        return errors
    spared = int(gates.spare_share * pixels)
    equal = f", masks within {spared} pixels count as equal" if spared else ""
    empty = f"{comparison.empty_frames} of {comparison.frames} frames without a mask{equal}"
    dice = f"mean {comparison.judged_mean_dice:.5f} worst {comparison.judged_worst_dice:.5f}"
    return f"{errors}, mask Dice {dice} ({empty})"


def _line(comparison: Comparison, report: GateReport, pixels: int) -> str:
    return (
        f"{comparison.candidate} against {comparison.reference}: "
        f"{figures(comparison, report.gates, pixels)}: {'passed' if report.passed else 'FAILED'}"
    )


def _range_line(measured: HalfRangeReport) -> str:
    name, value = measured.largest[0]
    return (
        f"largest of {measured.tensors} half tensors: {value:.4g} of {name}, allowed {measured.limit:.4g}: "
        f"{'passed' if measured.passed else 'FAILED'}"
    )
