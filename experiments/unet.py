"""The baseline: a U-Net of segmentation-models-pytorch from scratch, with the interface of vmkla's networks.

    pip install segmentation-models-pytorch

It wears a ``config``, so that vmkla's training saves it and vmkla's torch runner serves it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vmkla.errors import ArtefactMismatchError, MissingDependencyError

LIBRARY = "segmentation-models-pytorch"
_TORCHVISION_OPS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@dataclass(frozen=True)
class UNetConfig:
    """The configuration of a U-Net.

    Attributes:
        name: for tables.
        encoder: name of one of the library's encoders; its weights begin random.
        decoder_channels: widths of the decoder, deep to shallow; the library's default.
        num_classes: output channels.
    """

    name: str = "unet"
    encoder: str = "mobilenet_v2"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    num_classes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"library": LIBRARY, **dataclasses.asdict(self)}


class UNet(nn.Module):
    """The library's U-Net. Input and output as ``VMKLAUNet``: normalised RGB in, logits out.

    Args:
        config: fixes the parameters.
    Source: Ronneberger et al., U-Net, 2015; https://github.com/qubvel-org/segmentation_models.pytorch.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.net = import_library().Unet(
            config.encoder,
            encoder_weights=None,
            decoder_channels=config.decoder_channels,
            classes=config.num_classes,
        )
        self.to(memory_format=torch.channels_last)  # a fifth faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, H, W), H and W multiples of 32 -> (b, num_classes, H, W) logits."""
        logits: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return logits.contiguous()


def import_library() -> Any:
    """Import segmentation-models-pytorch.

    It imports torchvision, and a torchvision built for CUDA beside a torch for the CPU cannot load its
    compiled operators and fails. A U-Net uses none of them: it is enough to declare the two that the import
    asks for.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if not any(name in str(error) for name in _TORCHVISION_OPS):
                raise
            for name, schema in _TORCHVISION_OPS.items():
                torch.library.define(name, schema)
        import segmentation_models_pytorch
    except ImportError as error:
        raise MissingDependencyError(
            f"the U-Net needs the package {LIBRARY!r}, which cannot be imported here: {error}",
            hint=f"Run: pip install {LIBRARY} torch=={torch.__version__.partition('+')[0]}",
        ) from error
    return segmentation_models_pytorch


def load_unet(path: Path) -> UNet:
    """Load a U-Net from a weights file that vmkla's training wrote.

    Raises:
        ArtefactMismatchError: the file holds another network.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        values = json.loads((file.metadata() or {}).get("vmkla.model_config", "{}"))
        if values.pop("library", None) != LIBRARY:
            raise ArtefactMismatchError(f"{path} holds no U-Net of {LIBRARY}")
        model = UNet(UNetConfig(**{**values, "decoder_channels": tuple(values["decoder_channels"])}))
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    return model.eval()
