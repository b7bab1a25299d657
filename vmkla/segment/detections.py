"""Findings as detections of the package supervision, for its annotators, trackers and filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.imports import require
from vmkla.segment.findings import Findings

if TYPE_CHECKING:
    import supervision


def to_supervision(findings: Findings, class_names: Sequence[str] | None = None) -> supervision.Detections:
    """Convert the findings of a frame to ``supervision.Detections``, largest first.

    Args:
        findings: what the segmenter found.
        class_names: name of each output channel, ``segmenter.spec.metadata.class_names``; None leaves the
            detections without names.
    Returns:
        n detections: ``xyxy`` (n, 4) float32, px of the frame, the right and lower side exclusive; ``mask``
        (n, H, W) bool; ``confidence`` (n,) float32, the largest probability of each; ``class_id`` (n,) int,
        from 1; with names, ``data["class_name"]``.
    Raises:
        MissingDependencyError: supervision is not installed.
    Example:
        >>> import numpy, vmkla
        >>> mask = numpy.zeros((40, 60), numpy.uint8)
        >>> mask[10:20, 30:50] = 1
        >>> region = vmkla.Region(vmkla.Rect(30, 10, 20, 10), 200, 1, 0.9, 0.95)
        >>> vmkla.to_supervision(vmkla.Findings(mask, (region,), 0.9)).xyxy.tolist()
        [[30.0, 10.0, 50.0, 20.0]]
    """
    detections: type[supervision.Detections] = require(
        "supervision", extra="supervision", purpose="vmkla.to_supervision"
    ).Detections
    regions = findings.regions
    if not regions:
        return detections.empty()
    masks = np.zeros((len(regions), *findings.mask.shape), bool)
    for mask, region in zip(masks, regions, strict=True):
        x, y, w, h = region.box
        mask[y : y + h, x : x + w] = findings.pixels_of(region)
    data: dict[str, npt.NDArray[Any] | list[Any]] = {}
    if class_names is not None:
        data["class_name"] = _names(findings, class_names)
    return detections(
        xyxy=np.array(
            [(x, y, x + w, y + h) for x, y, w, h in (region.box for region in regions)], np.float32
        ),
        mask=masks,
        confidence=np.array([region.probability for region in regions], np.float32),
        class_id=np.array([region.class_index for region in regions], int),
        data=data,
    )


def _names(findings: Findings, class_names: Sequence[str]) -> npt.NDArray[np.str_]:
    """Return the class name of each finding; a model with one channel has the class 1 only."""
    offset = 1 if len(class_names) == 1 else 0
    return np.array([class_names[region.class_index - offset] for region in findings.regions])
