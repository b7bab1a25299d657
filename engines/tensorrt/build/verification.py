"""A new engine against the file that it was built from, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.build.preflight import BuildRequest, Preflight
from vmkla.engines.tensorrt.run.runner import TensorRTRunner
from vmkla.engines.verify.comparison import check, compare, gates_record
from vmkla.engines.verify.gate_frames import check_frames_of
from vmkla.engines.verify.gates import ENGINE
from vmkla.errors import BadInputError, GateError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.runner import Runner, RunnerSpec

CALLS = 3
"""Of each batch size, at least: the kernels are launched one by one in two calls, and by the CUDA graph from
the third on, see ``execution.WARMUP_RUNS``."""


def verify_engine(
    request: BuildRequest, plan: Preflight, draft: Path, *, runnable: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a new engine beside ONNX Runtime, on the frames that were asked for or on rendered ones.

    Args:
        request: what was asked for.
        plan: what was decided.
        draft: the engine, with a manifest beside it.
        runnable: a GPU here can run it.
        say: called with the verdict.
    Returns:
        The manifest's ``gates``.
    Raises:
        GateError: they differ by more than the gates allow.
    """
    if request.skip_gates:
        say("check: skipped; the engine is marked unverified")
        return {"skipped": True}
    if not runnable:
        targets = f" for SM {', '.join(map(str, plan.target_sms))}" if plan.target_sms else ""
        say(f"check: not run on any GPU; the engine was built ahead of time{targets}")
        return {"not_run": f"built ahead of time{targets}, where no such GPU was"}
    candidate = TensorRTRunner(draft, plugin=plan.plugin, warn_unverified=False)
    try:
        return hold_against_onnxruntime(
            plan,
            candidate,
            request.output,
            say,
            source=request.frames,
            max_megapixels=request.max_megapixels,
        )
    finally:
        candidate.close()


def hold_against_onnxruntime(
    plan: Preflight,
    candidate: Runner,
    output: Path,
    say: Callable[[str], None],
    *,
    source: str | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> dict[str, Any]:
    """Compare a runner with ONNX Runtime on the file that it came from, at each batch size of its profile.

    An engine has other kernels for other batch sizes, and another CUDA graph for each.

    Args:
        plan: what was decided: the file, its metadata and the profile.
        candidate: what is to be checked.
        output: the engine's name to be, for the message.
        say: called with the verdicts.
        source, max_megapixels: frames to compare on, see ``check_frames_of``.
    Returns:
        The manifest's ``gates``.
    Raises:
        GateError: a gate was not held.
        BadInputError: the source has no frames.
    """
    metadata = plan.metadata
    frames = check_frames_of(source, metadata.preprocess, max_megapixels=max_megapixels, say=say)
    if len(frames) % 2 == 0:  # an odd number: two frames a power of two apart in a batch then differ
        frames = frames[:-1]
    gates = ENGINE[metadata.precision]
    if metadata.random_weights:
        gates = gates.without_masks()
    runner = OnnxRuntimeRunner(plan.path, warn_unverified=False)
    if runner.spec.sha256 != plan.model.sha256:
        raise BadInputError(
            f"{plan.path} was changed while its engine was built, so {output} was not written",
            hint="Run the same command again.",
        )
    reference = Remembering(runner)
    checks: list[dict[str, Any]] = []
    failures: list[str] = []
    try:
        for batch in sorted({plan.profile.min, plan.profile.opt, plan.profile.max}):
            comparison = compare(
                reference, candidate, calls_of(frames, batch), batch=batch, spare_share=gates.spare_share
            )
            report = check(comparison, gates)
            say(
                f"{comparison.candidate} against {comparison.reference}, batch {batch}: probability error "
                f"max {comparison.max_error:.2e} mean {comparison.mean_error:.2e} "
                f"relative {comparison.relative_error:.2e}: "
                f"{'passed' if report.passed else 'FAILED'}"
            )
            checks.append({"batch": batch, **report.to_dict()})
            failures += [f"batch {batch}: {failure}" for failure in report.failures]
    finally:
        reference.close()
    if failures:
        raise GateError(
            f"the engine does not compute what ONNX Runtime computes from {plan.path}, so {output} was not "
            f"written: {'; '.join(failures)}",
            hint="Look at the figures; --skip-gates writes the engine nevertheless, marked unverified.",
        )
    return gates_record(checks, frames=len(frames), rendered=source is None)


def calls_of(frames: npt.NDArray[np.uint8], batch: int) -> npt.NDArray[np.uint8]:
    """Frames for calls of a runner, in order: each batch starts one frame later than the last.

    There are ``CALLS`` calls, and more where the batches would not reach every frame. What a call leaves
    behind is so never what the next is to give.

    Args:
        frames: (n, H, W, 3), different from each other.
        batch: frames at once.
    Returns:
        (calls * batch, H, W, 3).
    """
    calls = max(CALLS, len(frames) - batch + 1)
    order = np.arange(calls)[:, None] + np.arange(batch)
    return np.take(frames, order.ravel() % len(frames), axis=0)


class Remembering:
    """A runner that computes each batch of frames once: it is slow, and batch sizes share their frames.

    Args:
        runner: what computes.
    """

    def __init__(self, runner: Runner) -> None:
        self.name = runner.name
        self._runner = runner
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}

    @property
    def spec(self) -> RunnerSpec:
        """Of the runner."""
        return self._runner.spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """As the runner gives it."""
        key = frames_rgb.tobytes()
        if key not in self._known:
            self._known[key] = self._runner.infer(frames_rgb)
        return self._known[key]

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()
