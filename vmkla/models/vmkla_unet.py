"""VMKLA-UNet: VMamba encoder, decoder with KAN linear attention, U-shaped."""

from __future__ import annotations

from torch import Tensor, nn

from vmkla.config import ModelConfig
from vmkla.errors import ShapeError
from vmkla.models.decoder import Decoder, SegmentationHead
from vmkla.models.encoder import Encoder


class VMKLAUNet(nn.Module):
    """VMKLA-UNet.

    Inside, tensors are channels-last. The input is an RGB image, normalised by ImageNet's mean and
    deviation (``vmkla.config.IMAGENET_MEAN`` and ``IMAGENET_STD``, on values of 0 to 1).

    Args:
        config: configuration of the network.
        backend: implementation of the two ops, see ``vmkla.ops``; it is not stored with the weights.
    Source: Su et al., VMKLA-UNet, Scientific Reports 15:13258, 2025; see ``docs/paper.md``.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, backend=backend)
        self.decoder = Decoder(config, backend=backend)
        self.head = SegmentationHead(config.dim, config.num_classes, config.patch)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            x: (b, 3, H, W), H and W multiples of ``config.multiple_px``.
        Returns:
            (b, num_classes, H, W) logits.
        Raises:
            ShapeError: x has another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(f"input must be (b, 3, H, W), got {tuple(x.shape)}")
        self.config.check_input(x.shape[2], x.shape[3])
        logits: Tensor = self.head(self.decoder(self.encoder(x)))
        return logits


def build_model(config: ModelConfig, backend: str = "auto") -> VMKLAUNet:
    """Make a network with new random weights, in training mode."""
    return VMKLAUNet(config, backend=backend)


def parameter_count(model: nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in model.parameters())
