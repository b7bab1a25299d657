"""Findings as detections of supervision."""

from __future__ import annotations

import numpy as np
import pytest
import supervision

import vmkla
from tests.procedures.annotations.test_formats import found
from vmkla.errors import MissingDependencyError


@pytest.mark.parametrize("classes", [1, 3])
def test_boxes_masks_and_classes_are_the_findings(classes: int) -> None:
    findings = found(2, smooth=1.0, classes=classes)
    names = ["polyp"] if classes == 1 else ["background", "polyp", "tool"]
    detections = vmkla.to_supervision(findings, names)
    assert isinstance(detections, supervision.Detections) and len(detections) == len(findings.regions) > 5
    assert (
        detections.mask is not None and detections.class_id is not None and detections.confidence is not None
    )
    np.testing.assert_array_equal(
        (detections.mask * detections.class_id[:, None, None]).max(0), findings.mask
    )
    np.testing.assert_array_equal(detections.mask.sum(0), findings.mask > 0)  # no pixel twice
    np.testing.assert_array_equal(
        detections.mask.sum((1, 2)), [region.area_px for region in findings.regions]
    )
    # supervision's own boxes of masks have their right and lower side inside.
    np.testing.assert_array_equal(supervision.mask_to_xyxy(detections.mask) + (0, 0, 1, 1), detections.xyxy)
    np.testing.assert_allclose(detections.confidence, [region.probability for region in findings.regions])
    named = dict(enumerate(names, start=1 if classes == 1 else 0))
    assert list(detections["class_name"]) == [named[region.class_index] for region in findings.regions]


def test_without_names_and_without_findings() -> None:
    assert "class_name" not in vmkla.to_supervision(found(2, smooth=1.0)).data
    assert vmkla.to_supervision(vmkla.Findings(np.zeros((5, 7), np.uint8))).is_empty()


def test_its_annotators_draw_them() -> None:
    findings = found(2, smooth=2.0)
    frame = np.full((40, 53, 3), 90, np.uint8)
    drawn = supervision.MaskAnnotator(opacity=1.0).annotate(frame.copy(), vmkla.to_supervision(findings))
    np.testing.assert_array_equal((drawn != frame).any(axis=2), findings.mask > 0)


def test_without_the_package_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MissingDependencyError) as caught:
        vmkla.to_supervision(vmkla.Findings(np.zeros((5, 7), np.uint8)))
    assert caught.value.hint is not None and "vmkla[supervision]" in caught.value.hint
