"""One labelled image through the network and back, and the count of what is right and wrong in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.metrics import Confusion, confusion, mean_measures
from vmkla.runner import Runner
from vmkla.segment.findings import find
from vmkla.segment.preprocess import PreprocessSpec, field_of_view, prepare, prepare_mask

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
        largest_region: the largest connected marked region (8-neighbourhood), as a fraction of the image.
    """

    confusions: tuple[Confusion, ...]
    largest_region: float

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
    threshold: float,
    *,
    preprocess: PreprocessSpec | None = None,
    set_name: str = "",
) -> tuple[ImageResult, Mask]:
    """Segment an image exactly as ``infer`` does, and compare at both resolutions.

    Args:
        runner: a loaded model.
        sample: image and truth.
        threshold: probability at and above which a pixel is polyp; without effect with several classes.
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
    rect = field_of_view(sample.image_rgb, preprocess.roi)
    frames = prepare(sample.image_rgb, preprocess, rect)[None]
    if spec.batch is not None and spec.batch > 1:
        frames = np.repeat(frames, spec.batch, axis=0)
    probability = runner.infer(frames)[0]  # (classes, h, w)
    findings = find(probability, rect, (truth.shape[0], truth.shape[1]), threshold)
    if spec.num_classes == 1:
        small = (probability[0] >= np.float32(threshold)).astype(np.uint8)
    else:
        small = np.argmax(probability, axis=0).astype(np.uint8)
    result = ImageResult(
        name=sample.name,
        set_name=set_name,
        group=sample.group,
        size_hw=(truth.shape[0], truth.shape[1]),
        native=compare(findings.mask, truth, spec.num_classes),
        model=compare(small, prepare_mask(truth, preprocess, rect), spec.num_classes),
        truth_fraction=np.count_nonzero(truth) / truth.size,
        max_probability=findings.max_probability,
        packed=sample.prepared is not None,
    )
    return result, findings.mask


def compare(prediction: Mask, truth: Mask, num_classes: int) -> Comparison:
    """Count the pixels of each class.

    Args:
        prediction, truth: (H, W) uint8, class indices.
        num_classes: output channels of the model.
    """
    return Comparison(
        tuple(confusion(prediction == k, truth == k) for k in range(1, max(2, num_classes))),
        largest_region(prediction),
    )


def largest_region(mask: Mask) -> float:
    """Area of the largest connected region that is not background, as a fraction of the image.

    Args:
        mask: (H, W) uint8, class indices. Neighbours of different classes are one region.
    """
    marked = np.asarray(mask > 0).view(np.uint8)
    left, top, width, height = cv2.boundingRect(marked)
    if not width:
        return 0.0
    window = marked[top : top + height, left : left + width]
    _, _, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8)
    return float(stats[1:, cv2.CC_STAT_AREA].max() / mask.size)


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
