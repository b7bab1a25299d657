"""VMKLA-UNet for medical image segmentation, from training to real time.

    import vmkla

    with vmkla.open("nano") as segmenter:
        findings = segmenter(frame_rgb)
        overlay_rgb = vmkla.draw(frame_rgb, findings)

Names are imported when they are first used, so that ``import vmkla`` costs nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmkla.engines.runners.load import load_runner
    from vmkla.errors import VmklaError
    from vmkla.runner import Runner, RunnerSpec
    from vmkla.segment.detections import to_supervision
    from vmkla.segment.findings import Findings, Region
    from vmkla.segment.operating_point import OperatingPoint
    from vmkla.segment.overlay import draw
    from vmkla.segment.preprocess import PreprocessSpec, Rect
    from vmkla.segment.segmenter import SegmentedFrame, Segmenter

__version__ = "0.1.0"

__all__ = [
    "Findings",
    "OperatingPoint",
    "PreprocessSpec",
    "Rect",
    "Region",
    "Runner",
    "RunnerSpec",
    "SegmentedFrame",
    "Segmenter",
    "VmklaError",
    "draw",
    "load_runner",
    "open",
    "to_supervision",
]

_HOMES = {
    "Findings": "segment.findings",
    "OperatingPoint": "segment.operating_point",
    "PreprocessSpec": "segment.preprocess",
    "Rect": "segment.preprocess",
    "Region": "segment.findings",
    "Runner": "runner",
    "RunnerSpec": "runner",
    "SegmentedFrame": "segment.segmenter",
    "Segmenter": "segment.segmenter",
    "VmklaError": "errors",
    "draw": "segment.overlay",
    "load_runner": "engines.runners.load",
    "to_supervision": "segment.detections",
}
"""Name -> module that defines it. This is the only module of vmkla that reaches up to the engines."""


def open(
    model: str | Path = "nano",
    *,
    runtime: str = "auto",
    device: str | None = None,
    threads: int | None = None,
    point: OperatingPoint | None = None,
    roi: str | Rect | None = None,
) -> Segmenter:
    """Load a model and check that it still computes what was verified.

    Args:
        model: name of a shipped model (``"nano"``), or a file: ``.onnx``, ``.plan`` or ``.safetensors``.
        runtime: ``"auto"`` (by the file), ``"onnxruntime"``, ``"tensorrt"``, ``"tensorrt-rtx"`` or
            ``"torch"``.
        device: ``"cpu"`` or ``"cuda:0"``; None takes the runtime's own.
        threads: CPU threads; None leaves the choice to the runtime.
        point: the rule by which a region counts as a finding; None takes the model's own.
        roi: field of view: ``"auto"``, ``"none"`` or a ``Rect``; None takes the model's own.
    Returns:
        The segmenter, a context manager.
    Raises:
        UsageError: an argument makes no sense for this file.
        BadInputError: there is no such model, or the file is damaged.
        ArtefactMismatchError: file, runtime and machine do not fit.
        MissingDependencyError: the runtime or the device is missing.
        VmklaError: the self-test fails.
    Example:
        >>> import vmkla
        >>> with vmkla.open("nano", threads=1) as segmenter:
        ...     segmenter.spec.num_classes
        1
    """
    from vmkla.engines.runners.load import load_runner
    from vmkla.segment.segmenter import Segmenter
    from vmkla.segment.self_test import check_self_test

    runner = load_runner(model, runtime, device, threads=threads)
    try:
        check_self_test(runner)
        return Segmenter(runner, point=point, roi=roi)
    except BaseException:
        runner.close()
        raise


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"vmkla.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vmkla' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
