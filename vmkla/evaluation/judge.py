"""One labelled image through the network and back, and the count of what is right and wrong in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.metrics import Confusion, confusion, mean_measures
from vmkla.runner import Runner
from vmkla.segment.findings import Findings, Region
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, Rect, prepare_mask
from vmkla.segment.steps import check, find, infer, view

Mask = npt.NDArray[np.uint8]


class LabelledImage(Protocol):
    """What is judged: ``vmkla.data.Sample`` and anything like it."""

    @property
    def name(self) -> str:
        """For the report."""

    @property
    def image_rgb(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8."""

    @property
    def mask(self) -> Mask:
        """(H, W) uint8, class indices: 0 is the background, 1 a polyp."""

    @property
    def group(self) -> str:
        """The sequence or volume that it is a part of; empty when it stands alone."""

    @property
    def prepared(self) -> PreprocessSpec | None:
        """How it was brought to another size already, in a packed file; None for an image of its own size."""


@dataclass(frozen=True)
class Comparison:
    """Prediction and truth of one image at one resolution.

    Attributes:
        confusions: counts of pixels, one per class that is not background.
        regions: connected regions of the prediction, largest first.
        findings: those of them that count at the evaluation's operating point.
    """

    confusions: tuple[Confusion, ...]
    regions: tuple[Region, ...]
    findings: tuple[Region, ...]

    @property
    def largest_region(self) -> float:
        """Area of the largest region as a share of the image, 0 to 1."""
        largest_px = self.regions[0].area_px if self.regions else 0
        return largest_px / self.confusions[0].pixels

    @property
    def has_polyp(self) -> bool:
        """Something is in the truth."""
        return any(c.tp + c.fn > 0 for c in self.confusions)

    @property
    def has_mark(self) -> bool:
        """Something is in the prediction, and be it one pixel."""
        return any(c.tp + c.fp > 0 for c in self.confusions)

    @property
    def found(self) -> bool:
        """Prediction and truth share a pixel of one class."""
        return any(c.tp > 0 for c in self.confusions)

    def measures(self) -> dict[str, float]:
        """The five measures, each the mean over the classes."""
        return mean_measures(self.confusions)


@dataclass(frozen=True)
class ImageResult:
    """One image.

    Attributes:
        name: of the image.
        set_name: the test set that it belongs to; empty when there is but one.
        group: the sequence or volume that it is a part of; empty when it stands alone.
        size_hw: height and width of the image, px.
        native: compared at the image's own resolution.
        model: compared at the network's resolution.
        truth_fraction: share of the image's own pixels that the truth marks.
        max_probability: the largest probability of a finding in it, 0 to 1.
        packed: the image was packed at another size than its own, and ``native`` speaks of that.
    """

    name: str
    set_name: str
    group: str
    size_hw: tuple[int, int]
    native: Comparison
    model: Comparison
    truth_fraction: float
    max_probability: float
    packed: bool = False

    def at(self, native: bool) -> Comparison:
        """The comparison at one of the two resolutions."""
        return self.native if native else self.model


def judge(
    runner: Runner,
    sample: LabelledImage,
    point: OperatingPoint,
    *,
    preprocess: PreprocessSpec | None = None,
    set_name: str = "",
) -> tuple[ImageResult, Mask]:
    """Segment an image exactly as ``infer`` does, and compare at both resolutions.

    Args:
        runner: a loaded model.
        sample: image and truth.
        point: its threshold makes the masks; peak and area decide which regions are findings.
        preprocess: None takes the model's own.
        set_name: noted in the result.
    Returns:
        The result, and the prediction: (H, W) uint8, class indices.
    Raises:
        BadInputError: the truth has another size than the image, or a class that the model does not know,
            or the image was packed with another field of view.
    """
    spec = runner.spec
    preprocess = remaining_preprocess(sample.name, sample.prepared, preprocess or spec.metadata.preprocess)
    truth = _truth(sample, max(1, spec.num_classes - 1))
    seen = view(sample.image_rgb, preprocess)
    probability = infer(runner, [seen.pixels_rgb])
    check(probability, spec)
    threshold_alone = OperatingPoint(point.threshold)
    frame_hw, model_hw = (truth.shape[0], truth.shape[1]), (spec.height, spec.width)
    findings = find(probability[0], seen.rect, frame_hw, threshold_alone)
    small = find(probability[0], Rect(0, 0, spec.width, spec.height), model_hw, threshold_alone)
    result = ImageResult(
        name=sample.name,
        set_name=set_name,
        group=sample.group,
        size_hw=(truth.shape[0], truth.shape[1]),
        native=_comparison(findings, truth, spec.num_classes, point, seen.rect),
        model=_comparison(
            small,
            prepare_mask(truth, preprocess, seen.rect),
            spec.num_classes,
            point,
            Rect(0, 0, spec.width, spec.height),
        ),
        truth_fraction=np.count_nonzero(truth) / truth.size,
        max_probability=findings.max_probability,
        packed=sample.prepared is not None,
    )
    return result, findings.mask


def confusions(prediction: Mask, truth: Mask, num_classes: int) -> tuple[Confusion, ...]:
    """Count the pixels of each class that is not background.

    Args:
        prediction, truth: (H, W) uint8, class indices.
        num_classes: output channels of the model.
    """
    return tuple(confusion(prediction == k, truth == k) for k in range(1, max(2, num_classes)))


def _comparison(
    findings: Findings, truth: Mask, num_classes: int, point: OperatingPoint, field: Rect
) -> Comparison:
    """Compare what the threshold marks with the truth, and list the regions that count at the point."""
    counted = tuple(
        region for region in findings.regions if point.accepts(region.area_px, region.peak, field.w * field.h)
    )
    return Comparison(confusions(findings.mask, truth, num_classes), findings.regions, counted)


def remaining_preprocess(
    name: str, prepared: PreprocessSpec | None, wanted: PreprocessSpec
) -> PreprocessSpec:
    """What is left to do with an image that may have lost its border already.

    Args:
        name: of the image.
        prepared: how it was packed; None for an image of its own size.
        wanted: what the model takes.
    Raises:
        BadInputError: it was packed with another field of view.
    """
    if prepared is None:
        return wanted
    if prepared.roi != wanted.roi:
        raise BadInputError(
            f"{name} was packed with the field of view {prepared.roi}, and the model takes {wanted.roi}",
            hint="Judge the model on the images themselves, or pack them again: vmkla data pack --roi",
        )
    return PreprocessSpec(wanted.height, wanted.width, "none")


def _truth(sample: LabelledImage, highest: int) -> Mask:
    """The truth, fit for comparison."""
    truth = np.asarray(sample.mask, np.uint8)
    if truth.shape != sample.image_rgb.shape[:2]:
        raise BadInputError(
            f"{sample.name}: the image is {sample.image_rgb.shape[:2]} and its truth {truth.shape} "
            "(height, width); they must be equal"
        )
    if truth.max(initial=0) > highest:
        raise BadInputError(
            f"{sample.name}: the truth holds class {truth.max()}, and the model knows classes 0 to {highest}",
            hint="Use a model that was trained on this set's classes.",
        )
    return truth
