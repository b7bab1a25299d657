"""The folder of a run: what is written there, each file whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vmkla.data.arrays import LabelledArrays
from vmkla.data.naming import without_folders
from vmkla.errors import UsageError
from vmkla.files import written_whole
from vmkla.models.checkpoints import save_weights
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.training.config import EpochReport, TrainConfig
from vmkla.training.records import draw_curves, write_metrics
from vmkla.training.state import load_state

CONFIG, STATE, BEST, LAST = "config.json", "state.pt", "best.safetensors", "last.safetensors"
METRICS, CURVES = "metrics.csv", "curves.png"
OUTPUTS = (CONFIG, STATE, BEST, LAST, METRICS, CURVES, "bad_batch*.npz")
"""Files of a run."""


def read_folder(config: TrainConfig) -> dict[str, Any] | None:
    """The state to resume from; None for a new run.

    Raises:
        UsageError: the folder holds a run, and it is not to be resumed, or the run had other settings or is
            beyond ``config.epochs``.
        BadInputError: there is no run to resume.
    """
    path = config.out_dir / STATE
    if config.resume:
        return load_state(path, config)
    if path.exists():
        raise UsageError(
            f"{config.out_dir} holds a run already ({STATE})",
            hint="Add --resume to continue it, or choose another folder.",
        )
    return None


def write_config(config: TrainConfig) -> None:
    """Write ``config.json``.

    Raises:
        BadInputError: it cannot be written.
    """
    with written_whole(config.out_dir / CONFIG) as file:
        file.write((json.dumps(config.to_dict(), indent=2) + "\n").encode())


def save_bad_batch(path: Path, batch: LabelledArrays) -> None:
    """Write a batch that cannot be trained on, for whoever looks into it.

    Raises:
        BadInputError: it cannot be written.
    """
    with written_whole(path) as file:
        np.savez_compressed(file, names=np.array(batch.names), images_rgb=batch.images_rgb, masks=batch.masks)


def write_epoch(
    config: TrainConfig, model: nn.Module, history: Sequence[EpochReport], summary: dict[str, Any]
) -> None:
    """Weights and records after an epoch.

    Args:
        config: of the run.
        model: the weights that were judged.
        history: every finished epoch, this one last.
        summary: summary of the training for the weights' file.
    """
    out_dir = config.out_dir
    for name in (LAST, BEST) if history[-1].best else (LAST,):
        save_weights(
            model,
            out_dir / name,
            training=summary,
            class_names=config.names_of_classes,
            threshold=config.threshold,
        )
    write_metrics(out_dir / METRICS, history)
    if config.curves:
        draw_curves(out_dir / CURVES, history)


def summarise(
    config: TrainConfig, report: EpochReport, train_set: LabelledArrays, val_set: LabelledArrays
) -> dict[str, Any]:
    """Summary of the training for the weights' file; no paths of this machine."""
    return {
        "data": [without_folders(str(source)) for source in config.data],
        "val": [without_folders(str(source)) for source in config.val],
        "train_images": len(train_set) - train_set.windows - config.rendered,
        "rendered_images": config.rendered,
        "polyp_free_windows": train_set.windows,
        "quiet_share": config.quiet_share,
        "teacher": None if config.teacher is None else config.teacher.name,
        "teacher_weight": None if config.teacher is None else config.teacher_weight,
        "val_images": len(val_set),
        "image_size_hw": list(config.image_size_hw),
        "roi": config.roi,
        "preprocess": PreprocessSpec(*config.image_size_hw, config.roi).to_dict(),
        "epoch": report.epoch,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "seed": config.seed,
        "precision": config.precision,
        "ema_decay": config.ema_decay,
        "init": None if config.init is None else config.init.name,
        "init_encoder": None if config.init_encoder is None else config.init_encoder.name,
        "val_dice": report.val_dice,
        "val_iou": report.val_iou,
        "figures": "per-image means at the network's resolution",
    }
