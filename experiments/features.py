"""Train nano with a teacher's features beside its soft masks: its encoder is brought closer to the teacher's.

    python experiments/features.py --init WEIGHTS.safetensors --teacher runs/teacher --pack teacher.vmkpack \\
        --data DIR:runs/teacher/train.txt --val DIR:VAL.txt --out runs/features

The teacher is one that ``experiments/teacher.py`` has trained. It sees every augmented batch, so unlike the
packed soft masks this costs its forward pass in each step. The same command again continues after a cut.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from experiments.teacher import Teacher, load_teacher
from vmkla.config import ModelConfig
from vmkla.data import AugmentConfig, DataSource
from vmkla.errors import VmklaError
from vmkla.models.checkpoints import load_weights
from vmkla.models.vmkla_unet import VMKLAUNet
from vmkla.training import TrainConfig, train

STAGES = (2, 3)
"""Stages of the student's encoder that are compared, of strides 16 and 32."""
RIDGE = 1e-2
"""Share of the mean variance that is added to the student's covariance, so that it can be inverted."""


def unexplained(student: Tensor, teacher: Tensor) -> Tensor:
    """Share of the teacher's variance that no linear map of the student's features explains, 1 - R².

    The best map is the ridge regression over the batch, in closed form: no layer is learned for it.

    Args:
        student: (n, c) features at n places.
        teacher: (n, d) features at the same places; every channel counts alike.
    Returns:
        (), 0 to 1.
    Source: Romero et al., FitNets, 2015, with the regressor at its optimum.
    """
    x, y = student.float(), teacher.float()
    x, y = x - x.mean(0), y - y.mean(0)
    y = y / y.std(0).clamp_min(1e-6)
    covariance = x.T @ x
    ridge = RIDGE * covariance.diagonal().mean() + 1e-6
    weights = torch.linalg.solve(covariance + ridge * torch.eye(x.shape[1]), x.T @ y)
    return (y - x @ weights).square().sum() / y.square().sum().clamp_min(1e-6)


class _Beside(torch.autograd.Function):
    """Passes logits on, and in the backward pass adds a loss's gradient as if it were part of the sum."""

    @staticmethod
    def forward(context: Any, logits: Tensor, loss: Tensor) -> Tensor:
        return logits.view_as(logits)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[0].new_ones(())


class Student(VMKLAUNet):
    """A network whose backward pass in training also brings its encoder closer to a teacher's.

    Args:
        config: of the network.
        teacher: in evaluation mode; it is not a part of the network, and is not saved with it.
        weight: of the comparison, which is the mean of ``unexplained`` over ``STAGES``.
    """

    def __init__(self, config: ModelConfig, teacher: Teacher, weight: float) -> None:
        super().__init__(config)
        self.beside = (teacher,)  # in a tuple: not a module of this one
        self.weight = weight
        self.gap = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """See ``VMKLAUNet``."""
        if not self.training:
            return super().forward(x)
        outputs = self.encoder(x)
        logits: Tensor = self.head(self.decoder(outputs))
        with torch.no_grad():
            deep = teacher_features(self.beside[0], x)
        with torch.autocast(x.device.type, enabled=False):
            gaps = [unexplained(outputs[stage].flatten(0, 2), deep[stage]) for stage in STAGES]
            gap = torch.stack(gaps).mean()
        self.gap = float(gap.detach())  # of the last batch
        return _Beside.apply(logits, self.weight * gap)  # type: ignore[no-any-return, no-untyped-call]


def teacher_features(teacher: Teacher, x: Tensor) -> dict[int, Tensor]:
    """Features of the teacher's encoder at the strides of the student's stages.

    Args:
        x: (b, 3, H, W) as for the student.
    Returns:
        stage of the student -> (b H/s W/s, d), rows in the order of a channels-last image.
    """
    found = teacher.net.encoder(x * teacher.gain + teacher.offset)
    by_stride = {x.shape[2] // each.shape[2]: each for each in found}
    return {stage: by_stride[4 << stage].permute(0, 2, 3, 1).flatten(0, 2) for stage in STAGES}


def make_student(init: Path, teacher: Teacher, weight: float) -> Student:
    """A student that begins with the weights of a file."""
    stored = load_weights(init)
    student = Student(stored.config, teacher, weight)
    student.load_state_dict(stored.model.state_dict())
    return student


def recipe(args: argparse.Namespace) -> TrainConfig:
    """The training, as the shipped weights' last one but for the learning rate and the seed."""
    return TrainConfig(
        out_dir=args.out,
        data=(DataSource.parse(args.data),),
        val=(DataSource.parse(args.val),),
        model="nano",
        class_names=("polyp",),
        image_size_hw=(256, 256),
        rendered=150,
        quiet_share=args.quiet_share,
        teacher=args.pack,
        epochs=args.epochs,
        batch_size=16,
        lr=args.lr,
        min_lr=args.lr / 50,
        weight_decay=0.03,
        t_max_epochs=0,
        warmup_epochs=1,
        ema_decay=0.998,
        augment=AugmentConfig(),
        seed=args.seed,
        threads=1,
        precision="bf16",
        save_minutes=3.0,
        resume=(args.out / "state.pt").exists(),
        tensorboard=False,
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--init", type=Path, required=True, help="weights to begin with")
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="--out of its training")
    parser.add_argument("--pack", type=Path, required=True, help="its soft masks")
    parser.add_argument("--data", required=True, help="DIR:FILE, images with masks and a list of stems")
    parser.add_argument("--val", required=True, help="as --data; the best weights are chosen on it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weight", type=float, default=1.0, help="of the comparison of features")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--quiet-share", type=float, default=0.1875)
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args(arguments)
    try:
        teacher = load_teacher(args.teacher / "run" / "best.safetensors").requires_grad_(False)
        students: list[Student] = []

        def network(config: TrainConfig) -> nn.Module:
            students.append(make_student(args.init, teacher, args.weight))
            return students[0]

        result = train(
            recipe(args),
            network=network,
            on_epoch=lambda r: print(
                f"epoch {r.epoch}/{r.epochs}: loss {r.train_loss:.4f}, features {students[0].gap:.3f}, "
                f"Dice {r.val_dice:.4f}, {r.seconds:.0f} s{', best' if r.best else ''}",
                flush=True,
            ),
            on_message=lambda line: print(line, flush=True),
        )
    except VmklaError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(f"best: epoch {result.best_epoch}, Dice {result.best_dice:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
