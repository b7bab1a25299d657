"""Compute Dice and HD95 per organ over whole volumes, whose slices are segmented one by one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.evaluation.judge import LabelledImage, Mask
from vmkla.evaluation.summary import spread
from vmkla.imports import require
from vmkla.metrics import Bootstrap, confusion


@dataclass(frozen=True)
class OrganScore:
    """Scores of one organ in one volume.

    Attributes:
        dice: Dice over the whole volume; 1 where neither truth nor prediction has the organ.
        hd95: 95th percentile of the surfaces' distances, voxels; NaN where one of the surfaces is missing.
        in_truth, in_prediction: whether it has a voxel there.
    """

    dice: float
    hd95: float
    in_truth: bool
    in_prediction: bool


def hd95(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """Compute the 95th percentile of the distances between two surfaces, both directions in one pool.

    One pool, and voxels as cubes of side 1, is what MedPy and so the published Synapse tables use. The
    distances of each direction come from MONAI.

    Args:
        prediction, truth: (S, H, W) or (H, W) bool.
    Returns:
        Voxels; NaN where one of the two has no voxel.
    Raises:
        MissingDependencyError: MONAI is missing.
    Source: Taha & Hanbury, BMC Medical Imaging 15:29, 2015; Chen et al., TransUNet, 2021.
    """
    if not prediction.any() or not truth.any():
        return math.nan
    torch = require("torch", extra="train", purpose="HD95 of volumes")
    utils = require("monai.metrics.utils", extra="train", purpose="HD95 of volumes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about an argument that MONAI gives itself
        _, (forth, back), _ = utils.get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(prediction)),
            torch.from_numpy(np.ascontiguousarray(truth)),
            symmetric=True,
        )
    return float(np.percentile(np.concatenate([forth.numpy(), back.numpy()]), 95))


def score_volume(prediction: Mask, truth: Mask, organs: int) -> tuple[OrganScore, ...]:
    """Score each organ of one volume.

    Args:
        prediction, truth: (S, H, W) uint8, class indices.
        organs: number of classes that are not background.
    """
    scores = []
    for index in range(1, organs + 1):
        found, real = prediction == index, truth == index
        scores.append(
            OrganScore(confusion(found, real).dice, hd95(found, real), bool(real.any()), bool(found.any()))
        )
    return tuple(scores)


class VolumeScores:
    """Collect slices, and score each volume once it is complete.

    Args:
        organs: names of the classes that are not background.
    """

    def __init__(self, organs: Sequence[str]) -> None:
        self._organs = tuple(organs)
        self._scores: dict[str, tuple[OrganScore, ...]] = {}
        self._volume = ""
        self._slices: list[tuple[Mask, Mask]] = []

    def add(self, sample: LabelledImage, prediction: Mask, set_name: str = "") -> None:
        """Add the next slice.

        Raises:
            BadInputError: the slice names no volume, belongs to an earlier volume, or has another size.
        """
        if not sample.group:
            raise BadInputError(f"{sample.name} belongs to no volume; every slice must name its own")
        volume = f"{set_name}/{sample.group}".strip("/")
        if volume != self._volume:
            self._finish()
            if volume in self._scores:
                raise BadInputError(f"{sample.name}: the slices of {volume} do not come one after the other")
            self._volume = volume
        elif prediction.shape != self._slices[0][0].shape:
            raise BadInputError(
                f"{sample.name} is {prediction.shape} (height, width), and the slices of {volume} before it "
                f"are {self._slices[0][0].shape}"
            )
        self._slices.append((prediction, np.asarray(sample.mask, np.uint8)))

    def summary(self, bootstrap: Bootstrap) -> dict[str, Any]:
        """Summarise all volumes: per organ over volumes, and the mean over organs.

        Returns:
            Plain values: ``count``, ``dice`` (mean over volumes of the mean over organs, with std and 95 %
            interval over volumes), ``hd95_voxels`` (mean over organs of the mean over volumes; None when
            no organ has one), ``by_organ`` (mean, std and 95 % interval over volumes;
            ``volumes``, ``absent`` from truth and prediction, ``missed``, ``invented``: the last three
            have no HD95 and are left out of its mean), ``each``.
        """
        self._finish()
        by_organ = {
            name: _organ([scores[index] for scores in self._scores.values()], bootstrap)
            for index, name in enumerate(self._organs)
        }
        means = np.array([np.mean([score.dice for score in scores]) for scores in self._scores.values()])
        distances = [row["hd95_voxels"] for row in by_organ.values() if row["hd95_voxels"] is not None]
        return {
            "count": len(self._scores),
            **spread("dice", means, bootstrap),
            "hd95_voxels": float(np.mean(distances)) if distances else None,
            "by_organ": by_organ,
            "each": {
                volume: {
                    name: {"dice": score.dice, "hd95_voxels": _or_none(score.hd95)}
                    for name, score in zip(self._organs, scores, strict=True)
                }
                for volume, scores in self._scores.items()
            },
        }

    def _finish(self) -> None:
        if self._slices:
            prediction, truth = (np.stack(part) for part in zip(*self._slices, strict=True))
            self._scores[self._volume] = score_volume(prediction, truth, len(self._organs))
            self._slices = []


def _organ(scores: Sequence[OrganScore], bootstrap: Bootstrap) -> dict[str, Any]:
    """Summarise one organ over all volumes."""
    dice = np.array([score.dice for score in scores], np.float64)
    distances = np.array([score.hd95 for score in scores if not math.isnan(score.hd95)], np.float64)
    row: dict[str, Any] = {
        "volumes": len(scores),
        "absent": sum(not (score.in_truth or score.in_prediction) for score in scores),
        "missed": sum(score.in_truth and not score.in_prediction for score in scores),
        "invented": sum(score.in_prediction and not score.in_truth for score in scores),
        "hd95_voxels": None,
    }
    for name, values in (("dice", dice), ("hd95_voxels", distances)):
        if len(values):
            row.update(spread(name, values, bootstrap))
    return row


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
