"""Train one network, evaluate its best weights and save both as a row of a results table. Resumable."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common import Table
from experiments.unet import UNet, UNetConfig, load_unet
from vmkla.config import PRESETS, get_preset
from vmkla.cpu_features import cpu_name
from vmkla.data import AugmentConfig, DataSource, iter_samples
from vmkla.engines.runners.torch_runner import TorchRunner
from vmkla.errors import UsageError, VmklaError
from vmkla.evaluation import evaluate
from vmkla.files import write_whole
from vmkla.metadata import ArtefactMetadata
from vmkla.models.checkpoints import load_weights
from vmkla.models.serving import weights_sha256
from vmkla.models.vmkla_unet import parameter_count
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.training import EpochReport, TrainConfig, TrainResult, train

PAPER: Mapping[str, Any] = {}
"""The paper's recipe is what ``TrainConfig`` defaults to."""
LONG: Mapping[str, Any] = {
    "batch_size": 16,
    "lr": 1e-3,
    "min_lr": 1e-5,
    "t_max_epochs": 0,
    "warmup_epochs": 1.0,
    "ema_decay": 0.997,
    "weight_decay": 0.02,
    "augment": AugmentConfig(),
}
"""One fall of the cosine, averaged weights, strong augmentation: better from random weights on few images."""
RECIPES = {"paper": PAPER, "long": LONG}

ROW, RUN = "row.json", "run"
RESULT = "result.json"
"""In the folder of a run of an experiment, once it is finished."""


@dataclass(frozen=True)
class Row:
    """One network trained on one data set with one recipe.

    Attributes:
        name: a preset of vmkla's, or ``unet`` or ``unet:ENCODER``.
        folder: where everything of the row lies.
        config: of its training, but for the folder and the network.
        tests: what it is judged on, by name.
        drop_path: rate of stochastic depth of vmkla's presets; a U-Net has none.
    """

    name: str
    folder: Path
    config: TrainConfig
    tests: Mapping[str, Sequence[DataSource]]
    drop_path: float = 0.0

    @property
    def unet(self) -> UNetConfig | None:
        """The configuration of the U-Net when the name asks for one, else None."""
        kind, _, encoder = self.name.partition(":")
        if kind != "unet":
            return None
        return replace(UNetConfig(name=self.name), **({"encoder": encoder} if encoder else {}))


def train_config(row: Row) -> TrainConfig:
    """Build the row's training configuration, which resumes where an earlier call was cut off.

    Raises:
        UsageError: no network has the row's name.
    """
    out_dir = row.folder / RUN
    changes: dict[str, Any] = {"out_dir": out_dir, "resume": (out_dir / "state.pt").is_file()}
    if row.unet is None:
        if row.name not in PRESETS:
            raise UsageError(
                f"there is no network {row.name!r}", hint=f"Choose one of: {', '.join(PRESETS)}, unet"
            )
        changes["model"] = get_preset(row.name, drop_path=row.drop_path)
    return replace(row.config, **changes)


def run_row(row: Row, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Train what is left to train, evaluate, and write ``row.json``.

    Returns:
        What ``row.json`` holds. ``finished`` is false when the time was up before the last epoch: a later
        call resumes. None when it was up before the first: there is nothing to judge yet.
    Raises:
        UsageError: there is no test set, or no network of that name.
        StoppedError: a signal came; the state was saved.
    """
    config, unet = train_config(row), row.unet
    check_tests(row.tests)
    # A row that is done is judged again in a moment, and the loop itself knows that it is done.
    result = train(
        config,
        network=None if unet is None else lambda _: UNet(unet),
        on_epoch=lambda report: say(f"{row.name}: {_epoch_line(report)}"),
        on_message=lambda line: say(f"{row.name}: {line}"),
    )
    if result.best_weights is None:
        say(f"{row.name}: the time was up before one epoch was done; call again to resume")
        return None
    say(f"{row.name}: judging {result.best_weights}")
    model: nn.Module
    model = load_weights(result.best_weights).model if unet is None else load_unet(result.best_weights)
    document = {
        "row": row.name,
        "parameters": parameter_count(model),
        "recipe": _recipe(config),
        "data": _data_facts(config),
        "machine": machine(config.device),
        **_progress(result, config),
        "weights": {"file": f"{RUN}/{result.best_weights.name}", "sha256": weights_sha256(model)},
        "tests": judge(model, row.tests, config),
    }
    write_json(row.folder / ROW, document)
    return document


def check_tests(tests: Mapping[str, Sequence[DataSource]]) -> None:
    """Reject data without a test set before the training starts.

    Raises:
        UsageError: there is none.
    """
    if not tests:
        raise UsageError("the data have no test set to judge on", hint="Give a recipe: --data polyp=DIR")


def judge(
    model: nn.Module, tests: Mapping[str, Sequence[DataSource]], config: TrainConfig
) -> dict[str, dict[str, Any]]:
    """Evaluate every test set with ``vmkla.evaluation.evaluate``, at native and at model resolution."""
    spec = PreprocessSpec(*config.image_size_hw, config.roi)
    settings: Any = model.config
    metadata = ArtefactMetadata(
        model_config=settings.to_dict(),
        class_names=("polyp",),
        threshold=config.threshold,
        preprocess=spec,
        weights_sha256=weights_sha256(model),
    )
    runner = TorchRunner(model, metadata, device=config.device)  # type: ignore[arg-type]
    found: dict[str, dict[str, Any]] = {}
    for name, sources in tests.items():
        figures = evaluate(runner, iter_samples(sources))
        found[name] = {key: figures[key] for key in ("images", "threshold", "resolutions", "by_size")}
    runner.close()
    return found


def machine(device: str) -> dict[str, Any]:
    """Describe the machine that a figure was measured on."""
    facts: dict[str, Any] = {
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return facts


def results_table(title: str, documents: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> Table:
    """Make the table of rows: per-image means at native resolution, global figures at the network's."""
    table = Table(
        title,
        ("network", "M parameters", "epochs", "hours", "test set", "images", "mean Dice (95 %)", "mean IoU",
         "global DSC", "global mIoU"),
        notes=[
            "Mean Dice and mean IoU: per-image means at native resolution. Global: one confusion matrix over",
            "all pixels at the network's resolution. Weights of the best epoch on the validation images.",
            *notes,
        ],
    )  # fmt: skip
    for document in documents:
        run = document["run"]
        epochs = f"{run['epochs_done']} of {document['recipe']['epochs']}, best {run['best_epoch']}"
        for name, found in document["tests"].items():
            native = found["resolutions"]["native"]["per_image"]
            totals = found["resolutions"]["model"]["global"]
            low, high = native["dice_ci95"]
            table.add(
                document["row"],
                f"{document['parameters'] / 1e6:.2f}",
                epochs,
                f"{run['seconds'] / 3600:.1f}",
                name,
                found["images"],
                f"{native['dice']:.4f} [{low:.4f}, {high:.4f}]",
                f"{native['iou']:.4f}",
                f"{totals['dsc']:.4f}",
                f"{totals['miou']:.4f}",
            )
    return table


def read_rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read ``row.json`` files, or those of the folders given."""
    return [json.loads((path / ROW if path.is_dir() else path).read_text(encoding="utf-8")) for path in paths]


def finished_run(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the result of a run; None when it is not finished.

    Raises:
        VmklaError: it is of another plan.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if done["plan"] != plan:
        raise VmklaError(
            f"{path} is of another plan: {done['plan']}, expected {plan}", hint="Choose another --out."
        )
    return done


def done_runs(folder: Path) -> list[dict[str, Any]]:
    """Read the results of all finished runs.

    Raises:
        VmklaError: there is none.
    """
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{RESULT}"))]
    if not documents:
        raise VmklaError(f"{folder} holds no finished run")
    return documents


def check_one_plan(documents: Sequence[Mapping[str, Any]]) -> None:
    """Reject results whose budgets differ.

    Raises:
        VmklaError: they are of several plans.
    """
    plan = documents[0]["plan"]
    for document in documents:
        if document["plan"] != plan:
            raise VmklaError(
                f"the runs are of several plans, {plan} and {document['plan']}", hint="Choose another --out."
            )


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically."""
    write_whole(path, (json.dumps(document, indent=2) + "\n").encode())


def _recipe(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration without what depends on this machine."""
    left_out = (
        "out_dir",
        "data",
        "val",
        "resume",
        "threads",
        "workers",
        "max_minutes",
        "save_minutes",
        "curves",
        "model",
    )
    return {name: value for name, value in config.to_dict().items() if name not in left_out}


def _data_facts(config: TrainConfig) -> dict[str, Any]:
    names = {"train": config.data, "val": config.val}
    return {kind: [Path(str(source)).name for source in sources] for kind, sources in names.items()}


def _progress(result: TrainResult, config: TrainConfig) -> dict[str, Any]:
    seconds = sum(report.seconds for report in result.history)
    return {
        "finished": result.finished,
        "run": {
            "epochs_done": result.epochs_done,
            "best_epoch": result.best_epoch,
            "val_dice": result.best_dice,
            "seconds": seconds,
            "images_per_s": max(report.images_per_s for report in result.history),
            "threads": config.threads,
        },
    }


def _epoch_line(report: EpochReport) -> str:
    return (
        f"epoch {report.epoch}/{report.epochs}: loss {report.train_loss:.4f}, validation Dice "
        f"{report.val_dice:.4f}, {report.images_per_s:.1f} images/s{', best so far' if report.best else ''}"
    )
