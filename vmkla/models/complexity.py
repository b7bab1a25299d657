"""Count a network's parameters and floating-point operations, block by block, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

from vmkla.config import ModelConfig
from vmkla.models.attention import KANQueryKey, LinearAttention, heads_of
from vmkla.models.decoder import DecoderStage
from vmkla.models.encoder import EncoderStage
from vmkla.models.ss2d import SS2D, dt_rank_of
from vmkla.models.vmkla_unet import VMKLAUNet, parameter_count
from vmkla.ops.scan import ROUTES

Shape = tuple[int, ...]

CONVENTION = (
    "A multiply and an add are two operations. Products and convolutions as torch.utils.flop_counter counts "
    "them; the scan as 9 L d n a route and the projection of its time steps (state-spaces/mamba, issue 110; "
    "VMamba's code); B-spline bases as 9 k (G + 1.5 k - 0.5) a value, nine for each basis of each order (the "
    "recursion's part of the count in Yu et al., KAN or MLP, 2024); norms, activations and sums are left out."
)


@dataclass(frozen=True)
class Cost:
    """Parameters and operations of one part of a network.

    Attributes:
        name: dotted name of the part, for instance ``encoder.stages.0.blocks.1``.
        kind: class of the part.
        parameters: number of learned values.
        flops: floating-point operations for one image.
    """

    name: str
    kind: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class MixerComparison:
    """Operations of KAN linear attention and of SS2D as token mixers of one decoder stage.

    Attributes:
        dim: channels of the block.
        height, width: tokens per column and row.
        attention: ``LinearAttention`` with Q and K from KAN layers.
        scan: ``SS2D`` at its width in a VSS block.
    """

    dim: int
    height: int
    width: int
    attention: Cost
    scan: Cost


@dataclass(frozen=True)
class Complexity:
    """Parameters and operations of a whole network for one image.

    Attributes:
        height, width: size of the image, px.
        parameters, flops: sums over the network.
        blocks: all parts of the network, in the order in which they run.
        mixers: the two token mixers, stage by stage, deep to shallow (the paper's Table 1).
        convention: how operations are counted.
    """

    height: int
    width: int
    parameters: int
    flops: int
    blocks: tuple[Cost, ...]
    mixers: tuple[MixerComparison, ...]
    convention: str = CONVENTION

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def scan_flops(u: Shape, p: Shape, dt_weight: Shape, A: Shape, *_: Any, **__: Any) -> int:
    """Count the operations of ``selective_scan2d``.

    They are nine per state, channel, pixel and route, the low-rank projection of delta, and one product with
    D per channel and pixel.

    Args:
        u, p, dt_weight, A: shapes of the op's inputs.
    Source: https://github.com/state-spaces/mamba/issues/110, as VMamba's ``flops_selective_scan_fn`` has it.
    """
    b, H, W, d = u
    n, R = A[1], dt_weight[1]
    pixels = b * H * W
    return pixels * d * (ROUTES * (9 * n + 2 * R) + 1)


def basis_flops(x: Shape, grid: Shape, order: int, *_: Any, **__: Any) -> int:
    """Count the operations of ``bspline_basis``: 9 k (G + 1.5 k - 0.5) per value.

    Order p of the recursion makes G + 2k - p bases, each of four differences, two quotients, two products
    and a sum. Yu et al. count 9 k (G + 1.5 k) + 2 G - 2.5 k - 1 for a spline, of which the sum of its G + k
    weighted bases takes 2 (G + k) - 1; here that sum is a matrix product, which torch counts.

    Args:
        x, grid: shapes of the op's inputs.
        order: order k of the splines.
    Source: Yu et al., KAN or MLP: A Fairer Comparison, 2024, and its code,
        https://github.com/yu-rp/KANbeFair.
    """
    cells = grid[-1] - 1 - 2 * order
    return torch.Size(x).numel() * sum(9 * (cells + 2 * order - p) for p in range(1, order + 1))


def measure(config: ModelConfig, height: int, width: int) -> Complexity:
    """Count a network's parameters and operations; its tensors hold no values.

    Args:
        config: configuration of the network.
        height, width: size of the image, px.
    Raises:
        ShapeError: the network does not take that size.
    """
    config.check_input(height, width)
    with torch.device("meta"):
        model = VMKLAUNet(config)
    per_module = _flops_per_module(model, (1, 3, height, width))
    parts = _parts(model)
    blocks = tuple(
        Cost(name, type(module).__name__, parameter_count(module), per_module.get(name, 0))
        for name, module in parts.items()
    )
    return Complexity(
        height=height,
        width=width,
        parameters=parameter_count(model),
        flops=per_module[""],
        blocks=blocks,
        mixers=tuple(
            _compare_mixers(config, dim, height // config.patch >> stage, width // config.patch >> stage)
            for stage, dim in reversed(list(enumerate(config.dims)))
        ),
    )


def _parts(model: VMKLAUNet) -> dict[str, nn.Module]:
    """Return the blocks and the layers between them, in the order in which they run."""
    parts: dict[str, nn.Module] = {"encoder.patch_embed": model.encoder.patch_embed}
    for side, stages in (("encoder", model.encoder.stages), ("decoder", model.decoder.stages)):
        for number, stage in enumerate(stages):
            assert isinstance(stage, EncoderStage | DecoderStage)
            own = dict(stage.named_modules())
            names = [f"blocks.{i}" for i in range(len(stage.blocks))]
            names = ["upsample", *names, "downsample"]
            parts |= {f"{side}.stages.{number}.{name}": own[name] for name in names if name in own}
    return parts | {"head": model.head}


def _compare_mixers(config: ModelConfig, dim: int, height: int, width: int) -> MixerComparison:
    d = config.expand * dim
    with torch.device("meta"):
        query_key = KANQueryKey(dim, config.kan_hidden, config.grid_size, config.spline_order, backend="auto")
        attention = LinearAttention(dim, heads_of(dim, config), query_key)
        scan = SS2D(d, config.d_state, dt_rank_of(dim))
    return MixerComparison(
        dim,
        height,
        width,
        attention=_cost("KAN linear attention", attention, (1, height, width, dim)),
        scan=_cost("SS2D", scan, (1, height, width, d)),
    )


def _cost(name: str, module: nn.Module, shape: Shape) -> Cost:
    return Cost(name, type(module).__name__, parameter_count(module), _flops_per_module(module, shape)[""])


def _flops_per_module(module: nn.Module, shape: Shape) -> Mapping[str, int]:
    """Count the operations of every submodule by name, and of the whole network under ``""``."""
    _register()
    x = torch.empty(shape, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module.eval()(x)
    root = type(module).__name__
    counts: dict[str, int] = {"": counter.get_total_flops()}
    for name, by_op in counter.get_flop_counts().items():
        if name.startswith(f"{root}."):
            counts[name.removeprefix(f"{root}.")] = sum(by_op.values())
    return counts


def _register() -> None:
    """Register the two ops with torch's counter, once per process."""
    ops = torch.ops.vmkla
    if ops.selective_scan2d not in flop_registry:
        register_flop_formula(ops.selective_scan2d)(scan_flops)
        register_flop_formula(ops.bspline_basis)(basis_flops)
