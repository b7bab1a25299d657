"""Measure the loss from quantizing each group of layers alone, as a table and a plot."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.calibration.artefact import Artefact
from vmkla.calibration.equalise import Divisors
from vmkla.calibration.insertion import Range
from vmkla.calibration.layers import groups_of
from vmkla.calibration.ranges import Progress
from vmkla.engines.verify.comparison import compare
from vmkla.errors import MissingDependencyError
from vmkla.files import write_whole
from vmkla.imports import require
from vmkla.runner import Runner

OpenRunner = Callable[[Path], Runner]
"""Loads a file and returns its runner."""


@dataclass(frozen=True)
class Sensitivity:
    """Loss from quantizing one group alone.

    Attributes:
        group: name of the group.
        layers: number of its layers.
        dice_loss: 1 minus the mean Dice between its masks and those of the unquantized network.
        worst_dice_loss: 1 minus the Dice of the worst frame.
        mean_error: mean absolute difference of the probabilities.
    """

    group: str
    layers: int
    dice_loss: float
    worst_dice_loss: float
    mean_error: float

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is more sensitive; an error that is not a number is the largest."""
        error = self.mean_error if np.isfinite(self.mean_error) else np.inf
        return (self.dice_loss if np.isfinite(error) else np.inf), error


def measure_groups(
    artefact: Artefact,
    ranges: Mapping[str, Range],
    frames: npt.NDArray[np.uint8],
    *,
    reference: Runner,
    open_runner: OpenRunner,
    folder: Path,
    divisors: Divisors | None = None,
    progress: Progress | None = None,
) -> tuple[Sensitivity, ...]:
    """Quantize each group alone, and compare the result with the unquantized network.

    Args:
        artefact: the file to quantize.
        ranges: ranges by ``Layer.key``.
        frames: (n, height, width, 3) uint8 RGB, preprocessed.
        reference: the unquantized network.
        open_runner: loads a candidate.
        folder: folder for temporary files.
        divisors: see ``Artefact.write_quantized``.
        progress: called after each group.
    Returns:
        One row for each group, most sensitive first.
    """
    groups = groups_of(artefact.layers)
    found = []
    untrained = artefact.metadata.random_weights
    for done, group in enumerate(groups):
        layers = [layer for layer in artefact.layers if layer.group == group]
        path = folder / "group.onnx"
        artefact.write_quantized(layers, ranges, path, divisors=divisors)
        with open_runner(path) as candidate:
            seen = compare(reference, candidate, frames)
        # The masks of an untrained network follow from noise.
        dice, worst = (1.0, 1.0) if untrained else (seen.mean_dice, seen.worst_dice)
        found.append(Sensitivity(group, len(layers), 1.0 - dice, 1.0 - worst, seen.mean_error))
        if progress is not None:
            progress(done + 1, len(groups), group)
    return tuple(sorted(found, key=lambda row: row.rank, reverse=True))


def write_results(
    rows: Sequence[Sensitivity], put_back: Sequence[str], folder: Path, say: Callable[[str], None]
) -> None:
    """Write ``sensitivity.md``, and ``sensitivity.png`` where matplotlib is installed.

    Args:
        rows: most sensitive first.
        put_back: groups that stay in higher precision.
        folder: folder of both files.
        say: called with a line when there is no plot.
    """
    write_whole(folder / "sensitivity.md", table(rows).encode())
    try:
        plot(rows, put_back, folder / "sensitivity.png")
    except MissingDependencyError as error:
        say(f"no plot: {error.message}")


def to_dicts(rows: Sequence[Sensitivity]) -> list[dict[str, Any]]:
    """Plain values, for JSON."""
    return [asdict(row) for row in rows]


def table(rows: Sequence[Sensitivity]) -> str:
    """Format the rows as a table in Markdown."""
    lines = ["| group | layers | Dice lost | worst frame | mean error |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row.group} | {row.layers} | {row.dice_loss:.5f} | {row.worst_dice_loss:.4f} "
        f"| {row.mean_error:.2e} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Sensitivity], kept: Sequence[str], path: Path) -> None:
    """Draw the rows as bars.

    Args:
        rows: most sensitive first.
        kept: groups that stay in higher precision; drawn in another colour.
        path: the PNG file.
    """
    require("matplotlib", extra="calibrate", purpose="the plot of sensitivities").use("Agg")
    pyplot = require("matplotlib.pyplot", extra="calibrate", purpose="the plot of sensitivities")
    figure, sides = pyplot.subplots(
        1, 2, figsize=(11, 1.2 + 0.26 * len(rows)), sharey=True, layout="constrained"
    )
    places = np.arange(len(rows))
    colours = ["tab:red" if row.group in kept else "tab:blue" for row in rows]
    sides[0].barh(places, [row.dice_loss for row in rows], color=colours)
    sides[0].set(xlabel="mean Dice lost, quantized alone")
    sides[0].set_yticks(places, [row.group for row in rows], fontsize=8)
    sides[0].invert_yaxis()
    sides[1].barh(places, [row.mean_error for row in rows], color=colours)
    sides[1].set(xlabel="mean probability error")
    figure.suptitle("red stays in higher precision" if kept else "all groups are quantized", fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    pyplot.close(figure)
    write_whole(path, data.getvalue())
