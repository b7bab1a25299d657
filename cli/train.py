"""``vmkla train``: labelled images to weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, progress_bar, say
from vmkla.cli.options import Json, Quiet, Threads, latest, numbered, parse_size
from vmkla.errors import UsageError

if TYPE_CHECKING:
    from vmkla.data.augment import AugmentConfig
    from vmkla.training.config import EpochReport


def train(
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            help="A folder with images/ and masks/, or DIR:FILE where FILE lists stems. Repeatable.",
        ),
    ],
    val: Annotated[list[str], typer.Option("--val", help="Validation set, written alike. Repeatable.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/train/MODEL, numbered.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Preset: nano, tiny, small or large.")] = "nano",
    decoder_block: Annotated[
        str, typer.Option("--decoder-block", help="mkcsa, mkla, csa, mlla, mlcsa or ss2d.")
    ] = "mkcsa",
    imgsz: Annotated[str, typer.Option("--imgsz", help="Input size in pixels, H or H,W.")] = "256",
    roi: Annotated[str, typer.Option("--roi", help="auto cuts black borders off; none does not.")] = "none",
    rendered: Annotated[int, typer.Option("--rendered", help="Rendered frames added to the data.")] = 0,
    epochs: Annotated[int, typer.Option("--epochs")] = 300,
    batch: Annotated[int, typer.Option("--batch", help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option("--lr")] = 1e-4,
    min_lr: Annotated[float, typer.Option("--min-lr", help="Lowest point of the cosine.")] = 1e-5,
    weight_decay: Annotated[float, typer.Option("--weight-decay")] = 1e-2,
    t_max_epochs: Annotated[
        int, typer.Option("--t-max-epochs", help="From the cosine's top to its bottom; 0: the whole run.")
    ] = 50,
    warmup_epochs: Annotated[float, typer.Option("--warmup-epochs")] = 0.0,
    ema_decay: Annotated[float, typer.Option("--ema-decay", help="Averaged weights; 0 is off.")] = 0.0,
    grad_clip: Annotated[float, typer.Option("--grad-clip", help="Largest gradient norm; 0 is off.")] = 1.0,
    bce_weight: Annotated[float, typer.Option("--bce-weight")] = 1.0,
    dice_weight: Annotated[float, typer.Option("--dice-weight")] = 1.0,
    augment: Annotated[
        list[str] | None,
        typer.Option("--augment", help="NAME=VALUE, for instance rotate_deg=90 or flip=0. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    threshold: Annotated[float, typer.Option("--threshold", help="For validation, 0 to 1.")] = 0.5,
    backend: Annotated[str, typer.Option("--backend", help="Of the ops: auto, native, reference.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda:0.")] = "cpu",
    precision: Annotated[str, typer.Option("--precision", help="fp32, or bf16 for autocast.")] = "fp32",
    init: Annotated[Path | None, typer.Option("--init", help="Weights to begin from (.safetensors).")] = None,
    init_encoder: Annotated[
        Path | None, typer.Option("--init-encoder", help="Public VMamba checkpoint for the encoder.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the last.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", help="Stop cleanly after this.")
    ] = None,
    save_minutes: Annotated[float, typer.Option("--save-minutes", help="Save at least this often.")] = 10.0,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    curves: Annotated[bool, typer.Option("--curves/--no-curves", help="Draw curves.png.")] = True,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on labelled images. Keeps the weights that do best on the validation set."""
    from vmkla.config import get_preset
    from vmkla.data.folder import DataSource
    from vmkla.training import StepReport, TrainConfig
    from vmkla.training import train as run_training

    config = TrainConfig(
        out_dir=out or (latest if resume else numbered)(Path("runs/train") / model),
        data=tuple(DataSource.parse(text) for text in data),
        val=tuple(DataSource.parse(text) for text in val),
        model=get_preset(model, decoder_block=decoder_block),
        image_size_hw=parse_size(imgsz, flag="--imgsz"),
        roi=roi,
        rendered=rendered,
        epochs=epochs,
        batch_size=batch,
        lr=lr,
        min_lr=min_lr,
        weight_decay=weight_decay,
        t_max_epochs=t_max_epochs,
        warmup_epochs=warmup_epochs,
        ema_decay=ema_decay,
        grad_clip=grad_clip,
        bce_weight=bce_weight,
        dice_weight=dice_weight,
        augment=_augmentation(augment or []),
        seed=seed,
        threads=threads,
        backend=backend,
        device=device,
        precision=precision,
        init=init,
        init_encoder=init_encoder,
        resume=resume,
        max_minutes=max_minutes,
        save_minutes=save_minutes,
        threshold=threshold,
        compile=compile,
        curves=curves,
    )
    with progress_bar("training", "steps", quiet=quiet) as bar:

        def show_step(step: StepReport) -> None:
            if bar is not None:
                done = (step.epoch - 1) * step.steps + step.step
                bar(
                    done,
                    step.epochs * step.steps,
                    f"epoch {step.epoch} of {step.epochs}, loss {step.loss:.4f}",
                )

        result = run_training(
            config,
            on_epoch=lambda report: say(_epoch_line(report), quiet=quiet),
            on_step=show_step,
            on_message=lambda line: say(line, quiet=quiet),
        )
    if json:
        print_json(dataclasses.asdict(result))
        return
    print(f"epochs: {result.epochs_done} of {config.epochs}" + ("" if result.finished else ", time was up"))
    if result.best_weights is not None:
        print(f"best:   {result.best_weights} (epoch {result.best_epoch}, Dice {result.best_dice:.4f})")
        print(f"last:   {result.last_weights}")


def _epoch_line(report: EpochReport) -> str:
    return (
        f"epoch {report.epoch}/{report.epochs}: loss {report.train_loss:.4f}, "
        f"validation loss {report.val_loss:.4f} Dice {report.val_dice:.4f} IoU {report.val_iou:.4f}, "
        f"{report.images_per_s:.1f} images/s{', best so far' if report.best else ''}"
    )


def _augmentation(changes: list[str]) -> AugmentConfig:
    from vmkla.data.augment import AugmentConfig

    values: dict[str, float] = {}
    names = [field.name for field in dataclasses.fields(AugmentConfig)]
    for change in changes:
        name, _, number = change.partition("=")
        if name not in names:
            raise UsageError(f"there is no augmentation {name!r}", hint=f"Choose one of: {', '.join(names)}")
        try:
            values[name] = float(number)
        except ValueError as error:
            raise UsageError(f"--augment {change!r}: expected NAME=NUMBER") from error
    return AugmentConfig(**values)
