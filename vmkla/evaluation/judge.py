"""Segment one labelled image and compare the result with its truth, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.evaluation.lesions import LesionMatch, match
from vmkla.metrics import Confusion, confusions, mean_measures
from vmkla.runner import Runner
from vmkla.segment.findings import Findings, Region
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, Rect, prepare_mask
from vmkla.segment.steps import check, find, infer, view

Mask = npt.NDArray[np.uint8]


class LabelledImage(Protocol):
    """An image with its truth, such as ``vmkla.data.Sample``."""

    @property
    def name(self) -> str:
        """Name of the image, for the report."""

    @property
    def image_rgb(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8."""

    @property
    def mask(self) -> Mask:
        """(H, W) uint8, class indices: 0 is the background, 1 a polyp."""

    @property
    def group(self) -> str:
        """Sequence or volume of the image; empty when it stands alone."""

    @property
    def prepared(self) -> PreprocessSpec | None:
        """Preprocessing of an image in a packed file; None for an image of its own size."""


@dataclass(frozen=True)
class MaskComparison:
    """Comparison of prediction and truth of one image at one resolution.

    Attributes:
        confusions: counts of pixels, one per class that is not background.
        regions: connected regions of the prediction, largest first.
        findings: the regions that count at the evaluation's operating point.
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
        """Whether the truth marks a pixel."""
        return any(c.tp + c.fn > 0 for c in self.confusions)

    @property
    def has_mark(self) -> bool:
        """Whether the prediction marks a pixel."""
        return any(c.tp + c.fp > 0 for c in self.confusions)

    @property
    def found(self) -> bool:
        """Whether prediction and truth share a pixel of one class."""
        return any(c.tp > 0 for c in self.confusions)

    def measures(self) -> dict[str, float]:
        """Return the five measures, each the mean over the classes."""
        return mean_measures(self.confusions)


@dataclass(frozen=True)
class ImageResult:
    """Result of one image.

    Attributes:
        name: name of the image.
        set_name: name of its test set; empty with a single set.
        group: sequence or volume of the image; empty when it stands alone.
        size_hw: height and width of the image, px.
        native: comparison at the image's own resolution.
        model: comparison at the network's resolution.
        lesions: the lesions of the truth and the false regions, at the image's own resolution.
        truth_fraction: share of the image's own pixels that the truth marks, 0 to 1.
        max_probability: largest probability of a class that is not background, 0 to 1.
        packed: whether the image was packed at another size than its own, so that ``native`` is that size.
    """

    name: str
    set_name: str
    group: str
    size_hw: tuple[int, int]
    native: MaskComparison
    model: MaskComparison
    lesions: LesionMatch
    truth_fraction: float
    max_probability: float
    packed: bool = False

    def at(self, native: bool) -> MaskComparison:
        """Return the comparison at one of the two resolutions."""
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
        point: operating point; its threshold makes the masks, its peak and area decide which regions count.
        preprocess: preprocessing; None takes the model's own.
        set_name: name of the test set, for the result.
    Returns:
        The result, and the prediction: (H, W) uint8, class indices.
    Raises:
        BadInputError: the truth has another size than the image, or a class that the model does not know,
            or the image was packed with another field of view.
    """
    spec = runner.spec
    preprocess = remaining_preprocess(sample.name, sample.prepared, preprocess or spec.metadata.preprocess)
    truth = checked_truth(sample.name, sample.image_rgb, sample.mask, spec.num_classes)
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
        lesions=match(truth, findings.mask, findings.regions, point, seen.rect.w * seen.rect.h),
        truth_fraction=np.count_nonzero(truth) / truth.size,
        max_probability=findings.max_probability,
        packed=sample.prepared is not None,
    )
    return result, findings.mask


def _comparison(
    findings: Findings, truth: Mask, num_classes: int, point: OperatingPoint, field: Rect
) -> MaskComparison:
    """Compare the threshold's mask with the truth, and list the regions that count at the operating point."""
    counted = findings.counted(point, field)
    return MaskComparison(confusions(findings.mask, truth, num_classes), findings.regions, counted)


def remaining_preprocess(
    name: str, prepared: PreprocessSpec | None, wanted: PreprocessSpec
) -> PreprocessSpec:
    """Return the preprocessing that is left for an image whose border may have been removed.

    Args:
        name: name of the image.
        prepared: preprocessing of a packed image; None for an image of its own size.
        wanted: preprocessing of the model.
    Raises:
        BadInputError: the image was packed with another field of view.
    """
    if prepared is None:
        return wanted
    if prepared.roi != wanted.roi:
        raise BadInputError(
            f"{name} was packed with the field of view {prepared.roi}, and the model takes {wanted.roi}",
            hint="Judge the model on the images themselves, or pack them again: vmkla data pack --roi",
        )
    return PreprocessSpec(wanted.height, wanted.width, "none")


def checked_truth(name: str, image_rgb: npt.NDArray[np.uint8], mask: Mask, num_classes: int) -> Mask:
    """Return the truth of an image once its size and classes are checked.

    Args:
        name: name of the image, for messages.
        image_rgb: (H, W, 3).
        mask: the truth, class indices.
        num_classes: output channels of the model.
    Returns:
        (H, W) uint8.
    Raises:
        BadInputError: it differs from the image in size, or holds a class that the model does not have.
    """
    truth, highest = np.asarray(mask, np.uint8), max(1, num_classes - 1)
    if truth.shape != image_rgb.shape[:2]:
        raise BadInputError(
            f"{name}: the image is {image_rgb.shape[:2]} and its truth {truth.shape} (height, width); they "
            "must be equal"
        )
    if truth.max(initial=0) > highest:
        raise BadInputError(
            f"{name}: the truth holds class {truth.max()}, expected the model's classes 0 to {highest}",
            hint="Use a model that was trained on this set's classes.",
        )
    return truth
