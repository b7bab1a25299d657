"""Compare two artefacts on one frame: their probabilities, their masks, and the lesions that they find."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.evaluation.evaluate import clinical_point
from vmkla.evaluation.judge import checked_truth, remaining_preprocess
from vmkla.evaluation.lesions import overlaps
from vmkla.metrics import confusions, mean_measures
from vmkla.runner import Runner, RunnerSpec
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, restore
from vmkla.segment.steps import View, find, infer, view

Rgb = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Probability = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VerifyFrame:
    """A frame on which two artefacts are compared.

    Attributes:
        name: name of the frame, for the report.
        image_rgb: (H, W, 3) uint8.
        mask: the truth, (H, W) uint8, class indices; None without a truth.
        prepared: preprocessing of a packed image; None for an image of its own size.
    """

    name: str
    image_rgb: Rgb
    mask: Mask | None = None
    prepared: PreprocessSpec | None = None

    def view(self, spec: RunnerSpec) -> View:
        """Return what a network sees of the image."""
        return view(self.image_rgb, remaining_preprocess(self.name, self.prepared, spec.metadata.preprocess))


@dataclass(frozen=True)
class Lesion:
    """A connected region (8-neighbourhood) of the truth, or a finding of the reference without a truth.

    Attributes:
        share: its share of the image, 0 to 1.
        found_by_reference, found_by_candidate: whether a finding of the side shares a pixel with it.
    """

    share: float
    found_by_reference: bool
    found_by_candidate: bool

    @property
    def lost(self) -> bool:
        """Whether the reference finds it and the candidate does not."""
        return self.found_by_reference and not self.found_by_candidate


@dataclass(frozen=True)
class Boundary:
    """Distance between two outlines, in pixels of the image; both directions in one pool.

    Attributes:
        mean_px, hd95_px: mean and 95th percentile of the distances.
    """

    mean_px: float
    hd95_px: float


@dataclass(frozen=True)
class FrameResult:
    """Result of one frame.

    Attributes:
        name: name of the frame.
        finite_reference, finite_candidate: whether every probability is finite; others count as 0 in the
            masks.
        max_error, mean_error: largest and mean absolute difference of all probabilities, 0 to 1.
        agreement: Dice of the two masks, 0 to 1; 1 where both are empty.
        dice_reference, dice_candidate: Dice against the truth, 0 to 1; without truth 1, and the agreement.
        has_lesion: whether the truth marks a pixel; without truth, whether the reference has a finding at its
            ``clinical_point``.
        empty: whether the truth marks no pixel; without truth, whether the reference marks none.
        alarm_reference, alarm_candidate: whether an empty frame has a finding at that point.
        lesions: connected regions of the truth; without truth, the reference's findings at that point.
        boundary_reference, boundary_candidate: distance to the truth's outline; without truth None, and the
            distance to the reference's outline. None also where one of the two masks is empty.
    """

    name: str
    finite_reference: bool
    finite_candidate: bool
    max_error: float
    mean_error: float
    agreement: float
    dice_reference: float
    dice_candidate: float
    has_lesion: bool
    empty: bool
    alarm_reference: bool
    alarm_candidate: bool
    lesions: tuple[Lesion, ...]
    boundary_reference: Boundary | None
    boundary_candidate: Boundary | None

    @property
    def drop(self) -> float:
        """Dice of the reference less the candidate's."""
        return self.dice_reference - self.dice_candidate

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class FrameMasks:
    """The masks of one frame at its own pixels.

    Attributes:
        reference, candidate: (H, W) uint8, class indices.
    """

    reference: Mask
    candidate: Mask


def answer(runner: Runner, frame: VerifyFrame) -> Probability:
    """Run a frame and return the probability, (classes, height, width)."""
    return np.asarray(infer(runner, [frame.view(runner.spec).pixels_rgb])[0])


def judge_frame(
    frame: VerifyFrame,
    reference: tuple[RunnerSpec, Probability],
    candidate: tuple[RunnerSpec, Probability],
) -> tuple[FrameResult, FrameMasks, npt.NDArray[np.float32]]:
    """Compare two probabilities with each other, and both masks with the truth where there is one.

    Args:
        frame: the frame.
        reference, candidate: spec and probability (classes, height, width). Each mask is made with its own
            model's threshold, at the frame's own pixels; lesions and alarms are judged by its findings.
    Returns:
        The result, the masks, and all absolute differences of probabilities: at the network's pixels, or at
        the frame's own where the two networks see frames of another size.
    Raises:
        BadInputError: the truth does not fit the image or the models.
    """
    classes = reference[0].num_classes
    truth = None
    if frame.mask is not None:
        truth = checked_truth(frame.name, frame.image_rgb, frame.mask, classes)
    finite, sound, masks, rects, findings, counted = [], [], [], [], [], []
    size_hw = (frame.image_rgb.shape[0], frame.image_rgb.shape[1])
    for spec, probability in (reference, candidate):
        finite.append(bool(np.isfinite(probability).all()))
        sound.append(probability if finite[-1] else np.nan_to_num(probability, posinf=0.0, neginf=0.0))
        rects.append(frame.view(spec).rect)
        masks.append(find(sound[-1], rects[-1], size_hw, OperatingPoint(spec.metadata.threshold)).mask)
        findings.append(find(sound[-1], rects[-1], size_hw, spec.operating_point).mask)
        counted.append(find(sound[-1], rects[-1], size_hw, clinical_point(spec)).mask)
    # Without truth the reference's findings are the lesions, from the size on that makes a false alarm.
    lesions = _lesions(counted[0] if truth is None else truth, findings[0], findings[1])
    if sound[0].shape != sound[1].shape or rects[0] != rects[1]:
        sound = [restore(part, rect, size_hw) for part, rect in zip(sound, rects, strict=True)]
    error = np.abs(sound[0] - sound[1])
    target = masks[0] if truth is None else truth
    empty = not target.any()
    alarms = [empty and bool(mask.any()) for mask in counted]
    agreement = _dice(masks[1], masks[0], classes)
    result = FrameResult(
        name=frame.name,
        finite_reference=finite[0],
        finite_candidate=finite[1],
        max_error=float(error.max()),
        mean_error=float(error.mean(dtype=np.float64)),
        agreement=agreement,
        dice_reference=_dice(masks[0], target, classes),
        dice_candidate=_dice(masks[1], target, classes),
        has_lesion=bool(lesions),
        empty=empty,
        alarm_reference=alarms[0],
        alarm_candidate=alarms[1],
        lesions=lesions,
        boundary_reference=None if truth is None else boundary(masks[0], target),
        boundary_candidate=boundary(masks[1], target),
    )
    return result, FrameMasks(*masks), error


def boundary(mask: Mask, target: Mask) -> Boundary | None:
    """Measure the distance of the outlines of the classes that both masks have; None without such a class.

    Args:
        mask, target: (H, W) uint8, class indices.
    """
    distances = []
    for value in np.intersect1d(np.unique(mask[mask > 0]), np.unique(target[target > 0])):
        edges = [_edge(part == value) for part in (mask, target)]
        for here, there in (edges, edges[::-1]):
            distance = cv2.distanceTransform(
                np.where(there, 0, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
            )
            distances.append(distance[here])
    if not distances:
        return None
    pool = np.concatenate(distances)
    return Boundary(float(pool.mean()), float(np.percentile(pool, 95)))


def _edge(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a region with a neighbour outside it; outside the image counts as outside."""
    cross = np.asarray(cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    inner = cv2.erode(region.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(region & (inner == 0))


def _lesions(target: Mask, reference: Mask, candidate: Mask) -> tuple[Lesion, ...]:
    """List the connected regions of each class of a mask, and who finds them."""
    found = []
    for value in np.unique(target[target > 0]):
        sides = (overlaps(target == value, mask == value) for mask in (reference, candidate))
        for (area_px, by_reference), (_, by_candidate) in zip(*sides, strict=True):
            found.append(Lesion(area_px / target.size, bool(by_reference), bool(by_candidate)))
    return tuple(found)


def _dice(mask: Mask, target: Mask, classes: int) -> float:
    """Return the mean Dice over the classes, as ``vmkla eval`` does: a class that neither has scores 1."""
    return mean_measures(confusions(mask, target, classes))["dice"]
