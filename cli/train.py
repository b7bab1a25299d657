"""``vmkla train``: train a network on labelled images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, progress_bar, say
from vmkla.cli.options import (
    Json,
    MaskOrientation,
    MaskValues,
    MaxMegapixels,
    Quiet,
    Root,
    SplitSeed,
    Threads,
    parse_size,
    read_rules,
    run_folder,
)
from vmkla.errors import UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.data import AugmentConfig, DataSet, DataSource
    from vmkla.data.rules import ReadRules
    from vmkla.training.config import EpochReport


def train(
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="A folder in any known layout, DIR:FILE where FILE lists stems, a packed file, or a recipe "
            "NAME=DIR (isic17, isic18, ph2, polyp, synapse). Repeatable.",
        ),
    ] = None,
    root: Root = None,
    val: Annotated[
        list[str] | None,
        typer.Option(
            "--val",
            help="Validation set, in the same forms; default: the data's own, or a tenth of the data.",
        ),
    ] = None,
    split_seed: SplitSeed = 0,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/train/MODEL, numbered.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Preset: nano, tiny, small or large.")] = "nano",
    decoder_block: Annotated[
        str, typer.Option("--decoder-block", help="mkcsa, mkla, csa, mlla, mlcsa or ss2d.")
    ] = "mkcsa",
    drop_path: Annotated[float, typer.Option("--drop-path", help="Largest rate of stochastic depth.")] = 0.0,
    imgsz: Annotated[str, typer.Option("--imgsz", help="Input size in pixels, H or H,W.")] = "256",
    roi: Annotated[str, typer.Option("--roi", help="auto cuts off black borders; none does not.")] = "none",
    rendered: Annotated[int, typer.Option("--rendered", help="Rendered frames added to the data.")] = 0,
    quiet_share: Annotated[
        float,
        typer.Option(
            "--quiet-share",
            metavar="F",
            help="Share of every batch without a lesion: empty images and polyp-free windows; 0 is off.",
        ),
    ] = 0.0,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="PACK", help="Packed file with a teacher's soft masks."),
    ] = None,
    teacher_weight: Annotated[
        float,
        typer.Option("--teacher-weight", help="Weight of the teacher's masks beside the true ones, up to 1."),
    ] = 0.5,
    epochs: Annotated[int, typer.Option("--epochs")] = 300,
    batch: Annotated[int, typer.Option("--batch", help="Images per step, over all processes.")] = 32,
    lr: Annotated[float, typer.Option("--lr")] = 1e-4,
    min_lr: Annotated[float, typer.Option("--min-lr", help="Lowest learning rate of the cosine.")] = 1e-5,
    weight_decay: Annotated[float, typer.Option("--weight-decay")] = 1e-2,
    t_max_epochs: Annotated[
        int,
        typer.Option("--t-max-epochs", help="Epochs from the highest to the lowest rate; 0: the whole run."),
    ] = 50,
    warmup_epochs: Annotated[float, typer.Option("--warmup-epochs")] = 0.0,
    ema_decay: Annotated[
        float, typer.Option("--ema-decay", help="Decay of the averaged weights; 0 is off.")
    ] = 0.0,
    grad_clip: Annotated[float, typer.Option("--grad-clip", help="Largest gradient norm; 0 is off.")] = 1.0,
    ce_weight: Annotated[
        float, typer.Option("--ce-weight", "--bce-weight", help="Weight of the cross-entropy in the loss.")
    ] = 1.0,
    dice_weight: Annotated[float, typer.Option("--dice-weight")] = 1.0,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            "--augment",
            help="paper (flips, rotation, crop; the default), strong (colour, blur, glare, border and more "
            "besides) or off, and NAME=VALUE, for instance rotate_deg=90. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    deterministic: Annotated[
        bool, typer.Option("--deterministic/--no-deterministic", help="Make equal runs give equal results.")
    ] = True,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Threshold of the validation, 0 to 1.")
    ] = 0.5,
    backend: Annotated[
        str,
        typer.Option("--backend", help="Backend of the ops: auto, native, triton, mamba_ssm or reference."),
    ] = "auto",
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda or cuda:N; cuda under torchrun.")
    ] = "cpu",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, or bf16 or fp16 for autocast; the scan stays float32.")
    ] = "fp32",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Keep weights of convolutions channels-last in memory.")
    ] = False,
    init: Annotated[Path | None, typer.Option("--init", help="Weights to begin from (.safetensors).")] = None,
    init_encoder: Annotated[
        Path | None, typer.Option("--init-encoder", help="Public VMamba checkpoint for the encoder.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, or the last one.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", help="Stop and save after this time.")
    ] = None,
    save_minutes: Annotated[float, typer.Option("--save-minutes", help="Save at least this often.")] = 10.0,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    curves: Annotated[bool, typer.Option("--curves/--no-curves", help="Draw curves.png.")] = True,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard/--no-tensorboard", help="Write for TensorBoard where it is installed."),
    ] = True,
    threads: Threads = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=0,
            help="Processes that augment, for each training process; default: none on a CPU, with a GPU one "
            "per CPU but one, at most 16.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on labelled images. Keeps the weights that do best on the validation set.

    Several GPUs or machines: torchrun --nproc-per-node N --no-python vmkla train ... --device cuda
    """
    from vmkla.config import get_preset
    from vmkla.training import Ranks, StepReport, TrainConfig
    from vmkla.training import train as run_training
    from vmkla.training.determinism import repeat_matrix_products

    ranks = Ranks.of(os.environ)
    if ranks.world > 1 and out is None and not resume:
        raise UsageError(f"{ranks.world} processes need one folder to agree on", hint="Give --out DIR.")
    if deterministic and device.startswith("cuda"):
        repeat_matrix_products(os.environ)
    reading = read_rules(max_megapixels, mask_values, mask_orientation)
    train_sources, val_sources, class_names = _sources(data or [], val or [], root, split_seed, reading)
    config = TrainConfig(
        out_dir=Path("runs/train") / model,
        data=train_sources,
        val=val_sources,
        model=get_preset(
            model, decoder_block=decoder_block, drop_path=drop_path, num_classes=len(class_names)
        ),
        class_names=class_names,
        image_size_hw=parse_size(imgsz, flag="--imgsz"),
        roi=roi,
        rendered=rendered,
        quiet_share=quiet_share,
        teacher=teacher,
        teacher_weight=teacher_weight,
        epochs=epochs,
        batch_size=batch,
        lr=lr,
        min_lr=min_lr,
        weight_decay=weight_decay,
        t_max_epochs=t_max_epochs,
        warmup_epochs=warmup_epochs,
        ema_decay=ema_decay,
        grad_clip=grad_clip,
        ce_weight=ce_weight,
        dice_weight=dice_weight,
        augment=_augmentation(augment or []),
        seed=seed,
        threads=threads,
        workers=workers,
        backend=backend,
        device=device,
        precision=precision,
        channels_last=channels_last,
        deterministic=deterministic,
        init=init,
        init_encoder=init_encoder,
        resume=resume,
        max_minutes=max_minutes,
        save_minutes=save_minutes,
        threshold=threshold,
        compile=compile,
        curves=curves,
        tensorboard=tensorboard,
    )
    quiet = quiet or ranks.rank > 0
    with (
        run_folder(out, config.out_dir, again=resume, private=False) as folder,
        progress_bar("training", "steps", quiet=quiet) as bar,
    ):
        config = dataclasses.replace(config, out_dir=folder)

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
            ranks=ranks,
            on_epoch=lambda report: say(_epoch_line(report), quiet=quiet),
            on_step=show_step,
            on_message=lambda line: say(line, quiet=quiet),
        )
    if ranks.rank > 0:
        return
    if json:
        print_json(dataclasses.asdict(result))
        return
    print_line(
        f"epochs: {result.epochs_done} of {config.epochs}" + ("" if result.finished else ", time was up")
    )
    if result.best_weights is not None:
        print_line(f"best:   {result.best_weights} (epoch {result.best_epoch}, Dice {result.best_dice:.4f})")
        print_line(f"last:   {result.last_weights}")


def _epoch_line(report: EpochReport) -> str:
    return (
        f"epoch {report.epoch}/{report.epochs}: loss {report.train_loss:.4f}, "
        f"validation loss {report.val_loss:.4f} Dice {report.val_dice:.4f} IoU {report.val_iou:.4f}, "
        f"{report.images_per_s:.1f} images/s{', best so far' if report.best else ''}"
    )


def _sources(
    data: Sequence[str], val: Sequence[str], root: Path | None, split_seed: int, reading: ReadRules
) -> tuple[tuple[DataSource, ...], tuple[DataSource, ...], tuple[str, ...]]:
    """Return training and validation sources and the class names; never a test set."""
    from vmkla.data import open_dataset
    from vmkla.data.layouts import POLYP

    def opened(texts: Sequence[str], *, split: bool) -> list[DataSet]:
        return [
            open_dataset(text, root=root, seed=split_seed, split_validation=split, reading=reading)
            for text in texts
        ]

    train_sets, val_sets = opened(data, split=not val), opened(val, split=False)
    classes = {found.class_names for found in (*train_sets, *val_sets)} or {POLYP}
    if len(classes) > 1:
        named = "\n".join(f"  {', '.join(names)}" for names in sorted(classes))
        raise UsageError(f"the sets do not have the same classes:\n{named}")
    for text, found in zip(data, train_sets, strict=True):
        if not found.train:
            raise UsageError(f"--data {text} holds no training set", hint="Name the folder to train on.")
    for text, found in zip(val, val_sets, strict=True):
        if not (found.val or found.train):
            raise UsageError(
                f"--val {text} has only test sets", hint="The best weights are never chosen on a test set."
            )
    chosen = [found.val or found.train for found in val_sets] or [found.val for found in train_sets]
    return (
        tuple(source for found in train_sets for source in found.train),
        tuple(source for sources in chosen for source in sources),
        classes.pop(),
    )


def _augmentation(changes: list[str]) -> AugmentConfig:
    from vmkla.data.augment import AugmentConfig

    presets = {"paper": AugmentConfig.paper, "strong": AugmentConfig, "off": AugmentConfig.off}
    names = [field.name for field in dataclasses.fields(AugmentConfig)]
    chosen = AugmentConfig.paper()
    values: dict[str, float] = {}
    for change in changes:
        name, equals, number = change.partition("=")
        if not equals and name in presets:
            chosen = presets[name]()
            continue
        if name not in names:
            raise UsageError(
                f"there is no augmentation {name!r}",
                hint=f"Choose one of: {', '.join(presets)}; or NAME=NUMBER with one of: {', '.join(names)}",
            )
        try:
            values[name] = float(number)
        except ValueError as error:
            raise UsageError(f"--augment {change!r}: expected NAME=NUMBER") from error
    return dataclasses.replace(chosen, **values)
