"""What a run writes for its reader: ``metrics.csv``, ``curves.png``, and TensorBoard's files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vmkla.files import written_whole
from vmkla.imports import require
from vmkla.training.config import EpochReport


def write_metrics(path: Path, history: Sequence[EpochReport]) -> None:
    """Write one line an epoch, anew each time, so that a resumed run has each epoch once.

    Raises:
        BadInputError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochReport)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(report) for report in history)
    with written_whole(path, private=False) as file:
        file.write(text.getvalue().encode())


def draw_curves(path: Path, history: Sequence[EpochReport]) -> None:
    """Draw loss and validation figures over the epochs.

    Raises:
        MissingDependencyError: matplotlib is absent.
        BadInputError: the file cannot be written.
    """
    require("matplotlib", extra="train", purpose="curves.png")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    epochs = [report.epoch for report in history]
    losses.plot(epochs, [report.train_loss for report in history], label="training")
    losses.plot(epochs, [report.val_loss for report in history], label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy + Dice loss")
    losses.legend()
    scores.plot(epochs, [report.val_dice for report in history], label="Dice")
    scores.plot(epochs, [report.val_iou for report in history], label="IoU")
    best = max(history, key=lambda report: report.val_dice)
    scores.axvline(best.epoch, linestyle=":", label=f"best Dice {best.val_dice:.3f}, epoch {best.epoch}")
    scores.set(xlabel="epoch", ylabel="per-image mean, validation", ylim=(0, 1))
    scores.legend()
    with written_whole(path, private=False) as file:
        figure.savefig(file, format="png", dpi=100)


class TensorBoard:
    """The figures of a run for TensorBoard. Where that is not installed nothing is written.

    Args:
        folder: its files go there; a resumed run adds one.
        wanted: write nothing when false.
    """

    SHOWN = ("train_loss", "val_loss", "val_dice", "val_iou", "lr", "images_per_s")

    def __init__(self, folder: Path, *, wanted: bool) -> None:
        self.folder = folder
        self.wanted = wanted and find_spec("tensorboard") is not None
        self._writer: Any = None

    def add(self, report: EpochReport) -> None:
        """Write an epoch's figures. A resumed run replaces what was there from this epoch on."""
        if not self.wanted:
            return
        if self._writer is None:
            tensorboard = require("torch.utils.tensorboard", extra="train", purpose="TensorBoard's files")
            self._writer = tensorboard.SummaryWriter(str(self.folder), purge_step=report.epoch)
        for name in self.SHOWN:
            self._writer.add_scalar(name, getattr(report, name), report.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
