"""Make a verified INT8 file from a float32 file and frames."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmkla import weights
from vmkla.calibration import sensitivity
from vmkla.calibration.artefact import Artefact, open_artefact, open_half
from vmkla.calibration.cache import CACHED, CalibrationCache
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import Divisors, equalise, find_divisors
from vmkla.calibration.insertion import Range
from vmkla.calibration.layers import Layer, groups_of
from vmkla.calibration.ranges import Progress, measure_ranges
from vmkla.calibration.reader import CheckSet, FrameSet, read_check, read_frames
from vmkla.calibration.request import CalibrateRequest, check_request, gates_of, half_beside
from vmkla.calibration.search import Found, PutBack, search
from vmkla.calibration.sensitivity import Sensitivity
from vmkla.data.folder import read_sample
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.verify.clinical import VerifyReport, verify_runners
from vmkla.engines.verify.comparison import gates_record
from vmkla.errors import BadInputError, GateError
from vmkla.files import file_sha256, write_whole
from vmkla.folders import locked_folder
from vmkla.names import Names, given_names
from vmkla.runner import Runner
from vmkla.segment import steps
from vmkla.segment.self_test import known_output
from vmkla.segment.steps import infer

SENSITIVITY_FRAMES = 16
"""Number of check frames on which each group is run alone."""
TIMED = 15
"""Number of frames on which both files are timed in turns."""
OUTPUTS = ("report.json", "sensitivity.md", "sensitivity.png", *CACHED)
"""Files that a calibration writes into its folder."""


@dataclass(frozen=True)
class CalibrateReport:
    """The quantized file and how it was made and checked.

    Attributes:
        path: the file.
        sha256: hex digest of the file's bytes.
        size_bytes, source_bytes: sizes of the file and of the float32 file.
        calibration: how the file was made, as in its metadata.
        verified: result of the comparison with the float32 file; None when it was skipped.
        sensitivity: most sensitive group first; empty when it was not measured.
        milliseconds: median time of one frame, ``before`` and ``after``; None for TensorRT.
        folder: folder of the table, the plot and the report.
    """

    path: Path
    sha256: str
    size_bytes: int
    source_bytes: int
    calibration: dict[str, Any]
    verified: dict[str, Any] | None
    sensitivity: tuple[Sensitivity, ...]
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
    """Measure ranges, quantize, and return to higher precision what the gates do not allow.

    Args:
        request: options of the calibration.
        say: called with a line for each step.
        progress: called while ranges and sensitivities are measured.
    Raises:
        GateError: no choice of layers passes the gates; nothing is written.
        UsageError: another run is active in the request's folder.
        VmklaError: a file or the data is not what it must be.
    """
    check_request(request)
    names = given_names((*request.data, *request.check), "the data")
    with locked_folder(request.out, OUTPUTS):
        with names.in_errors(request.anonymous):
            source = open_artefact(weights.resolve(request.model, ".onnx"), request.target, "fp32")
            goal = source
            if request.target == "tensorrt":
                goal = open_half(request.half or half_beside(source.path), source)
            frames = _read_frames(request, source, say)
        names = names.also(frames.shown)
        with names.in_errors(request.anonymous):
            check = _read_check(request, source, frames, say)
        names = names.also(check.shown)
        with names.in_errors(request.anonymous), _open(source.path, request) as reference:
            return _calibrate(_Job(request, say, progress, source, goal, frames, check, reference))


@dataclass(frozen=True, eq=False)
class _Job:
    """What all steps of one calibration share.

    Attributes:
        request, say, progress: see ``calibrate``.
        source: the float32 file, on which ranges are measured.
        goal: the file that is quantized: ``source``, or for TensorRT the half-precision file.
        frames: what the ranges are measured on.
        check: what each candidate is compared with ``reference`` on.
        reference: a runner of ``source``.
    """

    request: CalibrateRequest
    say: Callable[[str], None]
    progress: Progress | None
    source: Artefact
    goal: Artefact
    frames: FrameSet
    check: CheckSet
    reference: Runner


@dataclass(frozen=True, eq=False)
class _Measured:
    """Divisors of the activations' channels, and ranges of the divided activations, by ``Layer.key``."""

    divisors: Divisors
    ranges: dict[str, Range]


def _read_frames(request: CalibrateRequest, source: Artefact, say: Callable[[str], None]) -> FrameSet:
    frames = read_frames(
        request.data,
        source.metadata.preprocess,
        count=request.frames,
        check_count=0 if request.check else request.check_frames,
        allow_few=request.allow_few,
        anonymous=request.anonymous,
        reading=request.reading,
        say=say,
    )
    say(
        f"{len(frames.frames)} frames to calibrate with, sha256 {frames.sha256[:12]}; {frames.duplicates} of "
        f"{frames.seen} were like another one, {len(frames.problems)} could not be read"
    )
    return frames


def _read_check(
    request: CalibrateRequest, source: Artefact, frames: FrameSet, say: Callable[[str], None]
) -> CheckSet:
    """Read the frames to check with from their own data, or take those that were held out."""
    if not request.check:
        return CheckSet(frames.check_frames, frames.check_pairs, Names({}))
    return read_check(
        request.check,
        source.metadata.preprocess,
        count=request.check_frames,
        anonymous=request.anonymous,
        calibrated=frames,
        reading=request.reading,
        say=say,
    )


def _open(path: Path, request: CalibrateRequest) -> Runner:
    return OnnxRuntimeRunner(path, threads=request.threads, warn_unverified=False)


def _calibrate(job: _Job) -> CalibrateReport:
    """Measure, search for the layers to quantize, and write the file and the reports."""
    request = job.request
    _check_reference(job)
    with tempfile.TemporaryDirectory(prefix="vmkla-calibrate-") as name:
        folder = Path(name)
        measured, candidate = _measure(job, folder), folder / "candidate.onnx"
        rows: list[Sensitivity] = []

        def ranked() -> list[str]:
            if not rows:
                rows.extend(_measure_sensitivity(job, measured, folder))
            return [row.group for row in rows]

        if request.measure_sensitivity:
            ranked()
        found: Found[VerifyReport] | None = None
        if not request.skip_gates:
            groups = len(groups_of(job.goal.layers))
            found = search(ranked, groups, lambda back: _judge(job, measured, back, candidate))
        put_back = () if found is None else found.put_back
        if rows:
            sensitivity.write_results(rows, [back.group for back in put_back], request.out, job.say)
        if found is not None and not found.verdict.passed:
            raise GateError(
                f"no choice of layers passes the gates, so {request.output} was not written; the last of "
                f"{found.tried}: " + "; ".join(found.verdict.failures),
                hint="Try --method min-max or entropy, or more data that is like what the model will see.",
            )
        layers = _without(job.goal.layers, frozenset(back.group for back in put_back))
        facts = _facts(job, measured, layers, put_back)
        verified = None if found is None else _record(found.verdict)
        _write_final(job, measured, layers, candidate, gates=verified or {"skipped": True}, calibration=facts)
        timed = _time(job, candidate) if request.target != "tensorrt" else None
        write_whole(request.output, candidate.read_bytes(), private=False)
    report = CalibrateReport(
        path=request.output,
        sha256=file_sha256(request.output),
        size_bytes=request.output.stat().st_size,
        source_bytes=job.source.path.stat().st_size,
        calibration=facts,
        verified=verified,
        sensitivity=tuple(rows),
        milliseconds=timed,
        folder=request.out,
    )
    write_whole(request.out / "report.json", json.dumps(report.to_dict(), indent=2).encode())
    return report


def _check_reference(job: _Job) -> None:
    """Stop before anything is measured on another file or on values that are not finite."""
    if job.reference.spec.sha256 != job.source.sha256:
        raise BadInputError(
            f"{job.source.path} was changed while it was calibrated", hint="Run the same command again."
        )
    for name, frame in zip(job.frames.names, job.frames.frames, strict=True):
        if not np.isfinite(infer(job.reference, frame[np.newaxis])).all():
            raise GateError(
                f"{job.source.path} gives values that are not finite, first for {name}",
                hint="A model that does this in float32 is broken: look at its training.",
            )


def _measure(job: _Job, folder: Path) -> _Measured:
    """Measure divisors and ranges, or load those of an earlier run on the same model, frames and method."""
    request, source = job.request, job.source
    percentile = request.percentile if request.method == "percentile" else None
    facts = {
        "model": source.sha256,
        "data": job.frames.sha256,
        "method": request.method,
        "percentile": percentile,
        **source.form,
    }
    cache = CalibrationCache(request.out, facts)
    given: dict[str, Any] = {
        "input_type": source.metadata.input_type,
        "batch": source.batch,
        "threads": request.threads,
        "progress": job.progress,
    }
    divisors = cache.load_divisors()
    if divisors is None:
        channels = measure_channels(source.model, source.layers, job.frames.frames, **given)
        divisors = find_divisors(source.model, source.layers, channels)
        cache.save_divisors(divisors)
    if (kept := cache.load_ranges()) is not None:
        job.say(f"ranges were measured before: {cache.ranges}")
        return _Measured(divisors, kept)
    if cache.state.is_file():
        job.say(f"continuing from {cache.state}")
    model, layers = equalise(source.model, source.layers, divisors)
    equalised = folder / "equalised.onnx"
    equalised.write_bytes(model.SerializeToString())
    ranges = measure_ranges(
        equalised,
        layers,
        job.frames.frames,
        request.method,
        percentile=request.percentile,
        state=cache.state,
        **given,
    )
    cache.save_ranges(ranges)
    return _Measured(divisors, ranges)


def _measure_sensitivity(job: _Job, measured: _Measured, folder: Path) -> tuple[Sensitivity, ...]:
    step = max(1, len(job.check.frames) // SENSITIVITY_FRAMES)
    return sensitivity.measure_groups(
        job.goal,
        measured.ranges,
        job.check.frames[::step][:SENSITIVITY_FRAMES],
        reference=job.reference,
        open_runner=lambda path: _open(path, job.request),
        folder=folder,
        divisors=measured.divisors,
        progress=job.progress,
    )


def _judge(job: _Job, measured: _Measured, put_back: frozenset[str], path: Path) -> VerifyReport:
    """Write a candidate without these groups and check it against the gates."""
    layers, pairs = _without(job.goal.layers, put_back), job.check.pairs
    job.goal.write_quantized(layers, measured.ranges, path, divisors=measured.divisors)

    def show(done: int) -> None:
        if job.progress is not None:
            job.progress(done, len(job.check.frames), "checking")

    with _open(path, job.request) as candidate:
        verdict = verify_runners(
            job.reference,
            candidate,
            map(read_sample, pairs) if pairs else job.check.frames,  # not all samples in memory at once
            gates_of(job.request),
            progress=show,
        )
    outcome = "passed" if verdict.passed else "; ".join(verdict.failures)
    job.say(f"with {len(put_back)} groups in higher precision: {outcome}")
    return verdict


def _without(layers: Sequence[Layer], put_back: frozenset[str]) -> list[Layer]:
    return [layer for layer in layers if layer.group not in put_back]


def _facts(
    job: _Job, measured: _Measured, layers: Sequence[Layer], put_back: Sequence[PutBack]
) -> dict[str, Any]:
    """How the file was made, for its metadata."""
    request = job.request
    return {
        **job.goal.form,
        "method": request.method,
        "percentile": request.percentile if request.method == "percentile" else None,
        "data": {**job.frames.to_dict(), "checked_on": len(job.check.frames)},
        "source_sha256": job.source.sha256,
        "goal_sha256": job.goal.sha256,
        "layers": len(layers),
        "of_layers": len(job.goal.layers),
        "equalised": sum(layer.key in measured.divisors for layer in layers),
        "put_back": [asdict(back) for back in put_back],
    }


def _record(verdict: VerifyReport) -> dict[str, Any]:
    """What the metadata keep of the check; nothing about this machine, so equal runs give equal files."""
    kept = verdict.to_dict()
    del kept["reference"], kept["candidate"]
    return gates_record([kept], frames=verdict.figures["frames"], rendered=False)


def _write_final(
    job: _Job, measured: _Measured, layers: Sequence[Layer], path: Path, **facts: Mapping[str, Any]
) -> None:
    """Write the file with its own answer to the self-test: the float32 file's would hide saturation."""
    job.goal.write_quantized(layers, measured.ranges, path, divisors=measured.divisors, **facts)
    with _open(path, job.request) as runner:
        answer = known_output(runner)
    job.goal.write_quantized(
        layers, measured.ranges, path, divisors=measured.divisors, self_test=answer, **facts
    )


def _time(job: _Job, path: Path) -> dict[str, float]:
    """Median milliseconds of one frame before and after, run in turns."""
    batch = job.source.batch or 1
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    with _open(path, job.request) as candidate:
        for turn in range(TIMED + 2):
            frames = steps.batch(job.check.frames[turn % len(job.check.frames)][np.newaxis], batch)
            for name, runner in (("before", job.reference), ("after", candidate)):
                start = time.perf_counter()
                runner.infer(frames)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(values[2:])) / batch for name, values in seconds.items()}
