"""Check a new engine: compare it with ONNX Runtime on the file that it was built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.build.preflight import Preflight
from vmkla.engines.tensorrt.run.runner import TensorRTRunner
from vmkla.engines.verify.comparison import check, compare, gates_record
from vmkla.engines.verify.gate_frames import load_gate_frames
from vmkla.engines.verify.gates import ENGINE
from vmkla.errors import BadInputError, GateError
from vmkla.runner import ClosedOnExit, Runner, RunnerSpec

CALLS = 3
"""Least number of calls for each batch size: kernels are launched one by one in the first two, and by the
CUDA graph from the third on, see ``execution.WARMUP_RUNS``."""


def verify_engine(plan: Preflight, draft: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Compare a new engine with ONNX Runtime, on the frames of the request or on rendered ones.

    Args:
        plan: the request, and what was decided about it.
        draft: the engine, with a manifest beside it.
        say: called with the verdict.
    Returns:
        The manifest's ``gates``.
    Raises:
        GateError: they differ by more than the gates allow.
    """
    if plan.request.skip_gates:
        say("check: skipped; the engine is marked unverified")
        return {"skipped": True}
    if not plan.runnable:
        targets = f" for SM {', '.join(map(str, plan.target_sms))}" if plan.target_sms else ""
        say(f"check: not run on any GPU; the engine was built ahead of time{targets}")
        return {"not_run": f"built ahead of time{targets}, where no such GPU was"}
    with TensorRTRunner(draft, plugin=plan.plugin, warn_unverified=False) as candidate:
        return compare_with_onnxruntime(plan, candidate, say)


def compare_with_onnxruntime(
    plan: Preflight, candidate: Runner, say: Callable[[str], None]
) -> dict[str, Any]:
    """Compare a runner with ONNX Runtime on the file that it came from, at each batch size of its profile.

    An engine has other kernels for other batch sizes, and another CUDA graph for each.

    Args:
        plan: the request, and the file, metadata and profile that were chosen.
        candidate: the runner to check.
        say: called with the verdicts.
    Returns:
        The manifest's ``gates``.
    Raises:
        GateError: a gate failed.
        BadInputError: the source has no frames, or the file was changed during the build.
    """
    request, metadata = plan.request, plan.metadata
    frames = load_gate_frames(
        request.frames, metadata.preprocess, max_megapixels=request.max_megapixels, say=say
    )
    if len(frames) % 2 == 0:  # an odd number: two frames a power of two apart in a batch then differ
        frames = frames[:-1]
    gates = ENGINE[metadata.precision]
    if metadata.random_weights:
        gates = gates.without_masks()
    checks: list[dict[str, Any]] = []
    failures: list[str] = []
    with CachingRunner(OnnxRuntimeRunner(plan.path, warn_unverified=False)) as reference:
        if reference.spec.sha256 != plan.model.sha256:
            raise BadInputError(
                f"{plan.path} was changed while its engine was built, so {request.output} was not written",
                hint="Run the same command again.",
            )
        for batch in sorted({plan.profile.min, plan.profile.opt, plan.profile.max}):
            batches = shifted_batches(frames, batch)
            comparison = compare(reference, candidate, batches, batch=batch, spare_share=gates.spare_share)
            report = check(comparison, gates)
            say(
                f"{comparison.candidate} against {comparison.reference}, batch {batch}: probability error "
                f"max {comparison.max_error:.2e} mean {comparison.mean_error:.2e} "
                f"relative {comparison.relative_error:.2e}: "
                f"{'passed' if report.passed else 'FAILED'}"
            )
            checks.append({"batch": batch, **report.to_dict()})
            failures += [f"batch {batch}: {failure}" for failure in report.failures]
    if failures:
        raise GateError(
            f"the engine does not compute what ONNX Runtime computes from {plan.path}, so {request.output} "
            f"was not written: {'; '.join(failures)}",
            hint="Look at the figures; --skip-gates writes the engine nevertheless, marked unverified.",
        )
    return gates_record(checks, frames=len(frames), rendered=request.frames is None)


def shifted_batches(frames: npt.NDArray[np.uint8], batch: int) -> npt.NDArray[np.uint8]:
    """Arrange frames in batches, each of which starts one frame later than the last.

    There are at least ``CALLS`` batches, and more where these would not reach every frame. So the expected
    result of a call is never what the call before left in a buffer.

    Args:
        frames: (n, H, W, 3), different from each other.
        batch: frames in a batch.
    Returns:
        (batches * batch, H, W, 3).
    """
    calls = max(CALLS, len(frames) - batch + 1)
    order = np.arange(calls)[:, None] + np.arange(batch)
    return np.take(frames, order.ravel() % len(frames), axis=0)


class CachingRunner(ClosedOnExit):
    """A runner that computes each batch of frames once, since batch sizes share their frames.

    Args:
        runner: the runner that computes.
    """

    def __init__(self, runner: Runner) -> None:
        self.name = runner.name
        self._runner = runner
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}

    @property
    def spec(self) -> RunnerSpec:
        """The wrapped runner's."""
        return self._runner.spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the wrapped runner's result, from memory where the same frames were given before."""
        key = frames_rgb.tobytes()
        if key not in self._known:
            self._known[key] = self._runner.infer(frames_rgb)
        return self._known[key]

    def close(self) -> None:
        """Close the wrapped runner."""
        self._runner.close()
