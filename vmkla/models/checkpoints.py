"""Save and load weights: safetensors files with the configuration inside, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vmkla import __version__
from vmkla.bounded import parse_json, parse_names
from vmkla.config import ModelConfig
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError, VmklaError
from vmkla.files import write_whole
from vmkla.metadata import point_props, read_point_props
from vmkla.models.layers import Float32Island
from vmkla.models.vmkla_unet import VMKLAUNet
from vmkla.models.weights_file import HEADER_MAX_BYTES, NO_CHECKSUM, encode, read_weights
from vmkla.plain_values import from_plain
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec

FORMAT = "1"
"""Version of the header's layout; it rises when a reader of the old layout would misread the new one."""


@dataclass(frozen=True)
class LoadedWeights:
    """A network from a file, with the facts that the file states.

    Attributes:
        model: the network in evaluation mode, float32, on the CPU.
        config: its configuration.
        class_names: name of each output channel.
        threshold: lowest probability of a pixel that belongs to the mask, 0 to 1.
        training: summary of the training data and run; empty when unknown.
        preprocess: how frames were prepared for the training; None when unknown.
        operating_point: the rule by which a region counts as a finding; None when the file states a threshold
            only.
        tuning: see ``ArtefactMetadata``.
        sha256: hex digest of the file's bytes; empty when there is no file.
        notes: what could not be checked, for people.
    """

    model: VMKLAUNet
    config: ModelConfig
    class_names: tuple[str, ...]
    threshold: float
    training: dict[str, Any]
    preprocess: PreprocessSpec | None = None
    operating_point: OperatingPoint | None = None
    tuning: tuple[dict[str, Any], ...] = ()
    sha256: str = ""
    notes: tuple[str, ...] = ()


class Description(Protocol):
    """Configuration of a network: ``vmkla.config.ModelConfig``, or that of another library."""

    @property
    def num_classes(self) -> int:
        """Output channels."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; another library's name is under ``library``."""


def save_weights(
    model: nn.Module,
    path: Path | str,
    *,
    training: Mapping[str, Any],
    class_names: Sequence[str] = ("polyp",),
    threshold: float = 0.5,
    operating_point: OperatingPoint | None = None,
    half: bool = False,
) -> None:
    """Write a network's weights and configuration into one file, whole or not at all.

    Args:
        model: a network whose ``config`` is a ``Description``; ``load_weights`` reads vmkla's own only.
        path: the file to write; a file of that name is replaced.
        training: summary of the training data and run; anything that JSON can hold.
        class_names: name of each output channel.
        threshold: lowest probability of a pixel that belongs to the mask, 0 to 1.
        operating_point: the rule by which a region counts as a finding, with the same threshold; None states
            none.
        half: store float16, except for tensors that ``model.half()`` keeps in float32.
    Raises:
        UsageError: the class names or the threshold do not fit.
        BadInputError: the file cannot be written.
    """
    path = Path(path)
    config: Description = description_of(model)
    if len(class_names) != config.num_classes:
        raise UsageError(
            f"{len(class_names)} class names for {config.num_classes} output channels: "
            f"{', '.join(class_names)}"
        )
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"threshold must lie between 0 and 1, got {threshold}")
    if operating_point is not None and operating_point.threshold != threshold:
        raise UsageError(
            f"the operating point's threshold is {operating_point.threshold}, expected {threshold}"
        )
    header = {
        "vmkla.format": FORMAT,
        "vmkla.version": __version__,
        "vmkla.model_config": json.dumps(config.to_dict()),
        "vmkla.class_names": json.dumps(list(class_names)),
        "vmkla.threshold": json.dumps(threshold),
        "vmkla.training": json.dumps(dict(training)),
        **point_props(operating_point),
    }
    wide = _float32_names(model)
    tensors = {
        name: (value.half() if half and name not in wide else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    write_whole(path, encode(tensors, header), private=False)


def description_of(model: nn.Module) -> Description:
    """Return the configuration of a network.

    Raises:
        UsageError: it has none.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "num_classes") or not hasattr(config, "to_dict"):
        raise UsageError(
            f"a {type(model).__name__} cannot be saved: it has no `config` with `num_classes` and `to_dict()`"
        )
    described: Description = config
    return described


def load_weights(path: Path | str, *, backend: str = "auto") -> LoadedWeights:
    """Read what ``save_weights`` wrote.

    Args:
        path: a ``.safetensors`` file.
        backend: implementation of the two ops, see ``vmkla.ops``.
    Returns:
        The network and the facts that the file states.
    Raises:
        BadInputError: the file is missing, cut off or not safetensors.
        ArtefactMismatchError: the file is not one of vmkla's, has another version's layout, is damaged, or
            has a weight that is not finite.
    """
    path = Path(path)
    file = read_weights(_checked_name(path))
    header, tensors = file.header, file.tensors
    if "vmkla.format" not in header:
        raise ArtefactMismatchError(
            f"{path} is a safetensors file without vmkla's header, so its configuration is unknown",
            hint="Use a file that `vmkla train` wrote.",
        )
    if header["vmkla.format"] != FORMAT:
        raise ArtefactMismatchError(
            f"{path} has header layout {header['vmkla.format']!r}, this version reads {FORMAT!r}",
            hint="Run: pip install -U vmkla",
        )
    try:
        described = _facts(header["vmkla.model_config"])
        if "library" in described:
            raise ArtefactMismatchError(
                f"{path} holds a network of {described['library']}, which was trained here for comparison",
                hint="Load it with what made the network.",
            )
        config = ModelConfig.from_dict(described)
        class_names = from_plain(tuple[str, ...], _parsed(header["vmkla.class_names"]), "class_names")
        if len(class_names) != config.num_classes:
            raise ValueError(f"{len(class_names)} class names for {config.num_classes} output channels")
        threshold = from_plain(float, _parsed(header["vmkla.threshold"]), "threshold")
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold {threshold}, expected 0 to 1")
        point, tuning = read_point_props(header, threshold)
        training = _facts(header["vmkla.training"])
        preprocess = _preprocess_of(training)
    except ArtefactMismatchError:
        raise
    except (KeyError, ValueError, TypeError, VmklaError) as error:
        raise ArtefactMismatchError(
            f"{path} has a damaged vmkla header: {error}", hint="Fetch the file again, or train again."
        ) from error
    _check_fit(config, tensors, path)
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are replaced
        model = VMKLAUNet(config, backend=backend)
    model.load_state_dict(tensors)
    notes = () if file.has_checksum else (NO_CHECKSUM,)
    return LoadedWeights(
        model.eval(),
        config,
        class_names,
        threshold,
        training,
        preprocess,
        operating_point=point,
        tuning=tuning,
        sha256=file.sha256,
        notes=notes,
    )


def _parsed(text: str) -> Any:
    return parse_json(text, HEADER_MAX_BYTES)


def _facts(text: str) -> dict[str, Any]:
    return parse_names(text, HEADER_MAX_BYTES)


def _preprocess_of(training: Mapping[str, Any]) -> PreprocessSpec | None:
    if "image_size_hw" not in training:
        return None
    height, width = from_plain(tuple[int, int], training["image_size_hw"], "image_size_hw")
    return PreprocessSpec.from_dict({"height": height, "width": width, "roi": training.get("roi", "none")})


def _checked_name(path: Path) -> Path:
    if not path.is_file():
        raise BadInputError(f"there is no weights file {path}")
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise BadInputError(
            f"{path} is a pickle, and vmkla keeps its weights as .safetensors with the configuration inside",
            hint="A VMamba checkpoint starts a training: vmkla train --init-encoder FILE",
        )
    return path


def _check_fit(config: ModelConfig, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Compare the tensors with the network that the header describes, before memory is allocated for it."""
    blocks = sum((*config.encoder_depths, *config.decoder_depths))
    expected: Mapping[str, Tensor] = {}
    if blocks <= len(tensors):
        with torch.device("meta"):
            expected = VMKLAUNet(config).state_dict()
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems or not expected:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ArtefactMismatchError(
            f"{path} does not fit the network that its own header describes: "
            + ("; ".join(problems[:3]) if expected else f"{len(tensors)} tensors for {blocks} blocks")
            + more,
            hint="The file was written by another version of vmkla: pip install -U vmkla",
        )
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ArtefactMismatchError(
            f"{path} holds numbers that are not finite, in {len(broken)} tensors: {', '.join(broken[:3])}",
            hint="Choose weights of an earlier epoch, or of another run.",
        )


def _float32_names(model: nn.Module) -> set[str]:
    """Return the names of the tensors that stay float32 in a half-precision model."""
    return {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, Float32Island)
        for name in module.float32_names
    }
