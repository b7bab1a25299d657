"""A new engine against the file that it was built from, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vmkla.engines.gates import ENGINE
from vmkla.engines.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.tensorrt.preflight import BuildRequest, Preflight
from vmkla.engines.tensorrt.runner import TensorRTRunner
from vmkla.engines.verify import check, compare
from vmkla.errors import GateError
from vmkla.runner import Runner
from vmkla.video.clip import render_clip

RENDERED_FRAMES = 3


def verify_engine(
    request: BuildRequest, plan: Preflight, draft: Path, *, runnable: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a new engine on rendered frames beside ONNX Runtime.

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
        return hold_against_onnxruntime(plan, candidate, request.output, say)
    finally:
        candidate.close()


def hold_against_onnxruntime(
    plan: Preflight, candidate: Runner, output: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Compare a runner with ONNX Runtime on the file that it came from.

    Returns:
        The manifest's ``gates``.
    Raises:
        GateError: a gate was not held.
    """
    metadata = plan.metadata
    size = metadata.preprocess
    clip = render_clip(seed=0, height=size.height, width=size.width, frames=RENDERED_FRAMES)
    frames = np.stack([rgb for rgb, _ in clip])
    gates = ENGINE[metadata.precision]
    if metadata.random_weights:
        gates = gates.without_masks()
    reference = OnnxRuntimeRunner(plan.path, warn_unverified=False)
    try:
        comparison = compare(reference, candidate, frames, batch=plan.profile.max)
    finally:
        reference.close()
    report = check(comparison, gates)
    say(
        f"{comparison.candidate} against {comparison.reference}: probability error max "
        f"{comparison.max_error:.2e} mean {comparison.mean_error:.2e}: "
        f"{'passed' if report.passed else 'FAILED'}"
    )
    if not report.passed:
        raise GateError(
            f"the engine does not compute what ONNX Runtime computes from {plan.path}, so {output} was not "
            f"written: {'; '.join(report.failures)}",
            hint="Look at the figures; --skip-gates writes the engine nevertheless, marked unverified.",
        )
    return {"passed": True, "frames": len(frames), "rendered": True, "checks": [report.to_dict()]}
