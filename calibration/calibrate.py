"""From a float32 file and frames to a verified INT8 file: the one entry point."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vmkla import weights
from vmkla.calibration import ranges as activation_ranges
from vmkla.calibration import sensitivity
from vmkla.calibration.artefact import open_artefact, open_half
from vmkla.calibration.cache import CACHED, CalibrationCache
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import Divisors, equalise, find_divisors
from vmkla.calibration.insertion import Range
from vmkla.calibration.layers import Layer, groups_of
from vmkla.calibration.ranges import Progress
from vmkla.calibration.reader import read_check, read_frames
from vmkla.calibration.request import CalibrateRequest, check_request, gates_of, half_beside
from vmkla.calibration.search import Found, search
from vmkla.data.folder import read_sample
from vmkla.data.sources import Pair
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.verify.clinical import VerifyReport, verify_runners
from vmkla.engines.verify.comparison import gates_record
from vmkla.errors import BadInputError, GateError, MissingDependencyError
from vmkla.files import file_sha256, written_whole
from vmkla.folders import locked_folder
from vmkla.names import Names, given_names
from vmkla.runner import Runner
from vmkla.segment.self_test import known_output

SENSITIVITY_FRAMES = 16
"""Of the check frames, spread over them: each group is run on all of these."""
TIMED = 15
"""Frames by which both files are timed, in turns."""
OUTPUTS = ("report.json", "sensitivity.md", "sensitivity.png", *CACHED)
"""What a calibration writes into its folder."""


@dataclass(frozen=True)
class CalibrateReport:
    """What came of it.

    Attributes:
        path: the file.
        sha256: of its bytes.
        size_bytes, source_bytes: of the file, and of the float32 file that it was made of.
        calibration: how it was made, as its metadata keep it.
        verified: the check against the float32 file; None when it was skipped.
        sensitivity: most sensitive group first; empty when it was not measured.
        milliseconds: median of one frame, ``before`` and ``after``, of a file for a CPU.
        folder: where the table, the plot and the report are.
    """

    path: Path
    sha256: str
    size_bytes: int
    source_bytes: int
    calibration: dict[str, Any]
    verified: dict[str, Any] | None
    sensitivity: tuple[sensitivity.Sensitivity, ...]
    milliseconds: dict[str, float] | None
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "source_bytes": self.source_bytes,
            "calibration": self.calibration,
            "gates": self.verified or {"skipped": True},
            "sensitivity": sensitivity.to_dicts(self.sensitivity),
            "latency_ms": self.milliseconds,
            "out": str(self.folder),
        }


def calibrate(
    request: CalibrateRequest, say: Callable[[str], None], progress: Progress | None = None
) -> CalibrateReport:
    """Measure ranges, quantize, and put back what the gates do not allow.

    Args:
        request: what to do.
        say: called with a line for each step.
        progress: told while ranges and sensitivities are measured.
    Raises:
        GateError: no choice of layers passes; nothing is written.
        UsageError: another run is active in the request's folder.
        VmklaError: a file or the data is not what it must be.
    """
    check_request(request)
    with locked_folder(request.out, OUTPUTS):
        run = _Run(request, say, progress)
        if not request.anonymous:
            return run.report()
        run.names = given_names((*request.data, *request.check), "the data")
        try:
            return run.report()
        except Exception:
            with run.names.in_errors():  # by then it is known what the names stand for
                raise


@dataclass
class _Run:
    """One calibration."""

    request: CalibrateRequest
    say: Callable[[str], None]
    progress: Progress | None
    rows: tuple[sensitivity.Sensitivity, ...] = field(default=(), init=False)
    names: Names = field(default=Names({}), init=False)

    def report(self) -> CalibrateReport:
        request = self.request
        self.source = open_artefact(weights.resolve(request.model, ".onnx"), request.target, "fp32")
        self.goal = self.source
        if request.target == "tensorrt":
            self.goal = open_half(request.half or half_beside(self.source.path), self.source)
        self.frames = read_frames(
            request.data,
            self.source.metadata.preprocess,
            count=request.frames,
            check_count=0 if request.check else request.check_frames,
            allow_few=request.allow_few,
            anonymous=request.anonymous,
            reading=request.reading,
            say=self.say,
        )
        self.names = self.names.also(self.frames.shown)
        self._say_frames()
        self.check_frames, self.check_pairs = self.frames.check_frames, self.frames.check_pairs
        if request.check:
            self.check_frames, self.check_pairs, shown = read_check(
                request.check,
                self.source.metadata.preprocess,
                count=request.check_frames,
                anonymous=request.anonymous,
                calibrated=self.frames,
                reading=request.reading,
                say=self.say,
            )
            self.names = self.names.also(shown)
        self.reference = self._open(self.source.path)
        try:
            if self.reference.spec.sha256 != self.source.sha256:
                raise BadInputError(
                    f"{self.source.path} was changed while it was calibrated",
                    hint="Run the same command again.",
                )
            self._refuse_nan()
            with tempfile.TemporaryDirectory(prefix="vmkla-calibrate-") as folder:
                self.divisors, self.ranges = self._measured(Path(folder))
                return self._quantized(Path(folder))
        finally:
            self.reference.close()

    def _quantized(self, folder: Path) -> CalibrateReport:
        request, candidate = self.request, folder / "candidate.onnx"
        if request.measure_sensitivity:
            self._sensitivity(folder)
        found: Found[VerifyReport] | None = None
        kept: tuple[str, ...] = ()
        if not request.skip_gates:
            groups = len(groups_of(self.goal.layers))
            found = search(lambda: self._ranked(folder), groups, lambda back: self._judge(back, candidate))
            kept = tuple(back.group for back in found.put_back)
        self._write_sensitivity(kept)
        facts = self._facts(found)
        if found is not None and not found.verdict.passed:
            raise GateError(
                f"no choice of layers passes the gates, so {request.output} was not written; the last of "
                f"{found.tried}: " + "; ".join(found.verdict.failures),
                hint="Try --method min-max or entropy, or more data that is like what the model will see.",
            )
        verified = None if found is None else _lasting(found.verdict)
        layers = self._layers(frozenset(kept))
        gates = verified or {"skipped": True}
        self._write(layers, candidate, gates=gates, calibration=facts)
        answer = self._self_test(candidate)
        self._write(layers, candidate, gates=gates, calibration=facts, self_test=answer)
        timed = self._timed(candidate) if request.target != "tensorrt" else None
        with written_whole(request.output, private=False) as file:
            file.write(candidate.read_bytes())
        report = CalibrateReport(
            path=request.output,
            sha256=file_sha256(request.output),
            size_bytes=request.output.stat().st_size,
            source_bytes=self.source.path.stat().st_size,
            calibration=facts,
            verified=verified,
            sensitivity=self.rows,
            milliseconds=timed,
            folder=request.out,
        )
        with written_whole(request.out / "report.json") as file:
            file.write(json.dumps(report.to_dict(), indent=2).encode())
        return report

    def _say_frames(self) -> None:
        seen = self.frames
        self.say(
            f"{len(seen.frames)} frames to calibrate with, sha256 {seen.sha256[:12]}; {seen.duplicates} of "
            f"{seen.seen} were like another one, {len(seen.problems)} could not be read"
        )

    def _refuse_nan(self) -> None:
        """Stop before anything is measured on numbers that are none."""
        batch = self.source.batch or 1
        for name, frame in zip(self.frames.names, self.frames.frames, strict=True):
            if not np.isfinite(self.reference.infer(np.repeat(frame[None], batch, axis=0))).all():
                raise GateError(
                    f"{self.source.path} gives values that are not finite, first for {name}",
                    hint="A model that does this in float32 is broken: look at its training.",
                )

    def _measured(self, folder: Path) -> tuple[Divisors, dict[str, Range]]:
        """Divisors of the activations' channels, and ranges of what they leave."""
        request, source = self.request, self.source
        facts = {
            "model": source.sha256,
            "data": self.frames.sha256,
            "method": request.method,
            "percentile": request.percentile if request.method == "percentile" else None,
            **source.form,
        }
        cache = CalibrationCache(request.out, facts)
        given: dict[str, Any] = {
            "input_type": source.metadata.input_type,
            "batch": source.batch,
            "threads": request.threads,
            "progress": self.progress,
        }
        divisors = cache.load_divisors()
        if divisors is None:
            channels = measure_channels(source.model, source.layers, self.frames.frames, **given)
            divisors = find_divisors(source.model, source.layers, channels)
            cache.save_divisors(divisors)
        if (kept := cache.load()) is not None:
            self.say(f"ranges were measured before: {cache.ranges}")
            return divisors, kept
        if cache.state.is_file():
            self.say(f"going on with {cache.state}")
        model, layers = equalise(source.model, source.layers, divisors)
        equalised = folder / "equalised.onnx"
        equalised.write_bytes(model.SerializeToString())
        measured = activation_ranges.measure(
            equalised,
            layers,
            self.frames.frames,
            request.method,
            percentile=request.percentile,
            state=cache.state,
            **given,
        )
        cache.save(measured)
        return divisors, measured

    def _open(self, path: Path) -> Runner:
        return OnnxRuntimeRunner(path, threads=self.request.threads, warn_unverified=False)

    def _show_checked(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, len(self.check_pairs or self.check_frames), "checking")

    def _samples(self) -> Iterable[Any]:
        return self.check_frames if not self.check_pairs else _Samples(self.check_pairs)

    def _layers(self, put_back: frozenset[str]) -> list[Layer]:
        return [layer for layer in self.goal.layers if layer.group not in put_back]

    def _write(self, layers: Sequence[Layer], path: Path, **facts: Any) -> None:
        self.goal.quantized(layers, self.ranges, path, divisors=self.divisors, **facts)

    def _self_test(self, path: Path) -> dict[str, Any]:
        """The file's own answer to the self-test's pictures: the float32 file's would hide saturation."""
        runner = self._open(path)
        try:
            return known_output(runner)
        finally:
            runner.close()

    def _judge(self, put_back: frozenset[str], path: Path) -> VerifyReport:
        self._write(self._layers(put_back), path)
        candidate = self._open(path)
        try:
            verdict = verify_runners(
                self.reference,
                candidate,
                self._samples(),
                gates_of(self.request),
                progress=self._show_checked,
            )
        finally:
            candidate.close()
        outcome = "passed" if verdict.passed else "; ".join(verdict.failures)
        self.say(f"with {len(put_back)} groups in higher precision: {outcome}")
        return verdict

    def _ranked(self, folder: Path) -> Sequence[str]:
        if not self.rows:
            self._sensitivity(folder)
        return [row.group for row in self.rows]

    def _sensitivity(self, folder: Path) -> None:
        step = max(1, len(self.check_frames) // SENSITIVITY_FRAMES)
        self.rows = sensitivity.measure_groups(
            self.goal,
            self.ranges,
            self.check_frames[::step][:SENSITIVITY_FRAMES],
            reference=self.reference,
            open_runner=self._open,
            folder=folder,
            divisors=self.divisors,
            progress=self.progress,
        )

    def _write_sensitivity(self, kept: Sequence[str]) -> None:
        if not self.rows:
            return
        with written_whole(self.request.out / "sensitivity.md") as file:
            file.write(sensitivity.table(self.rows).encode())
        try:
            sensitivity.plot(self.rows, kept, self.request.out / "sensitivity.png")
        except MissingDependencyError as error:
            self.say(f"no plot: {error.message}")

    def _facts(self, found: Found[VerifyReport] | None) -> dict[str, Any]:
        """What the file's metadata say of how it was made."""
        put_back = () if found is None else found.put_back
        layers = self._layers(frozenset(back.group for back in put_back))
        return {
            **self.goal.form,
            "method": self.request.method,
            "percentile": self.request.percentile if self.request.method == "percentile" else None,
            "data": {**self.frames.to_dict(), "checked_on": len(self.check_frames)},
            "source_sha256": self.source.sha256,
            "goal_sha256": self.goal.sha256,
            "layers": len(layers),
            "of_layers": len(self.goal.layers),
            "equalised": sum(layer.key in self.divisors for layer in layers),
            "put_back": [asdict(back) for back in put_back],
        }

    def _timed(self, path: Path) -> dict[str, float]:
        """Median of one frame before and after, run in turns."""
        candidate = self._open(path)
        batch = self.source.batch or 1
        seconds: dict[str, list[float]] = {"before": [], "after": []}
        try:
            for turn in range(TIMED + 2):
                frame = self.check_frames[turn % len(self.check_frames)]
                for name, runner in (("before", self.reference), ("after", candidate)):
                    start = time.perf_counter()
                    runner.infer(np.repeat(frame[None], batch, axis=0))
                    seconds[name].append(time.perf_counter() - start)
        finally:
            candidate.close()
        return {name: 1e3 * float(np.median(values[2:])) / batch for name, values in seconds.items()}


class _Samples:
    """Labelled images that are read anew for each pass, so that they are never all in memory."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Any:
        return (read_sample(pair) for pair in self._pairs)


def _lasting(verdict: VerifyReport) -> dict[str, Any]:
    """What a file keeps of its check: nothing of where it was run, so equal runs give equal files."""
    kept = verdict.to_dict()
    del kept["reference"], kept["candidate"]
    return gates_record([kept], frames=verdict.figures["frames"], rendered=False)
