"""How good a loaded model is on labelled images. No torch here: any runner can be judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, UsageError
from vmkla.metrics import MEASURES, Confusion, bootstrap_mean, confusion, global_measures, per_image
from vmkla.preprocess import field_of_view, prepare, prepare_mask, restore
from vmkla.runner import Runner


class LabelledImage(Protocol):
    """What is judged: ``vmkla.data.Sample`` and anything like it."""

    @property
    def name(self) -> str:
        """For the report."""

    @property
    def image_rgb(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8."""

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(H, W), true on polyps."""


@dataclass(frozen=True)
class ImageResult:
    """One image.

    Attributes:
        name: of the image.
        confusion: counts of its pixels.
        max_probability: the largest probability of a polyp in it, 0 to 1.
    """

    name: str
    confusion: Confusion
    max_probability: float

    @property
    def has_polyp(self) -> bool:
        """There is a polyp in the truth."""
        return self.confusion.tp + self.confusion.fn > 0

    @property
    def raised_alarm(self) -> bool:
        """There is a polyp in the prediction."""
        return self.confusion.tp + self.confusion.fp > 0


def evaluate(
    runner: Runner,
    samples: Iterable[LabelledImage],
    *,
    threshold: float | None = None,
    at_native: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Segment labelled images exactly as ``infer`` does, and compare.

    Args:
        runner: a model with one class (polyp).
        samples: images and truths.
        threshold: probability at and above which a pixel is polyp; None takes the model's own.
        at_native: compare at the images' own resolution (PraNet's protocol); otherwise at the
            network's, the truth shrunk by area and cut at one half.
        resamples: draws of the bootstrap.
        seed: of the bootstrap.
    Returns:
        Plain values: ``images``, ``threshold``, ``resolution``, ``per_image`` (mean, std and 95 % interval of
        each measure over images; an image with neither truth nor prediction scores 1), ``global`` (one
        confusion matrix over all pixels), ``without_polyp`` (images without one, and false alarms among
        them), ``with_polyp`` (images with one, and those in which nothing of it was found), ``each``.
    Raises:
        BadInputError: there is no image.
        UsageError: the model has several classes, or the threshold makes no sense.
    """
    spec = runner.spec
    if spec.num_classes != 1:
        raise UsageError(f"the model has {spec.num_classes} classes, expected 1 (polyp)")
    limit = spec.metadata.threshold if threshold is None else threshold
    if not 0 < limit < 1:
        raise UsageError(f"the threshold must lie between 0 and 1, got {limit}")
    results = [_judge(runner, sample, limit, at_native) for sample in samples]
    if not results:
        raise BadInputError("there is no labelled image", hint="Give a folder with images/ and masks/.")
    confusions = [result.confusion for result in results]
    per_measure: dict[str, Any] = {}
    for name, values in per_image(confusions).items():
        low, high = bootstrap_mean(values, resamples=resamples, seed=seed)
        per_measure[name] = float(values.mean())
        per_measure[f"{name}_std"] = float(values.std())
        per_measure[f"{name}_ci95"] = [low, high]
    totals = global_measures(confusions)
    negatives = [result for result in results if not result.has_polyp]
    positives = [result for result in results if result.has_polyp]
    return {
        "images": len(results),
        "threshold": limit,
        "resolution": "native" if at_native else f"{spec.height}x{spec.width}",
        "per_image": per_measure,
        "global": {"dsc": totals["dice"], "miou": totals["iou"], **{m: totals[m] for m in MEASURES[2:]}},
        "without_polyp": {
            "images": len(negatives),
            "false_alarms": sum(result.raised_alarm for result in negatives),
        },
        "with_polyp": {
            "images": len(positives),
            "missed": sum(result.confusion.tp == 0 for result in positives),
        },
        "each": [
            {
                "name": result.name,
                "dice": result.confusion.dice,
                "iou": result.confusion.iou,
                "max_probability": result.max_probability,
            }
            for result in results
        ],
    }


def _judge(runner: Runner, sample: LabelledImage, threshold: float, at_native: bool) -> ImageResult:
    """One image through prepare, infer, restore and threshold."""
    spec = runner.spec
    preprocess = spec.metadata.preprocess
    rect = field_of_view(sample.image_rgb, preprocess.roi)
    frames = prepare(sample.image_rgb, preprocess, rect)[None]
    if spec.batch is not None and spec.batch > 1:
        frames = np.repeat(frames, spec.batch, axis=0)
    probability = runner.infer(frames)[0]  # (1, h, w)
    if at_native:
        truth = sample.mask
        probability = restore(probability, rect, truth.shape[:2])
    else:
        truth = prepare_mask(sample.mask, preprocess, rect)
    found = probability[0] >= np.float32(threshold)
    return ImageResult(sample.name, confusion(found, truth), float(probability.max()))
