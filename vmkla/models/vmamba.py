"""Initialise the encoder from a public VMamba checkpoint (its first version, v0)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.models.encoder import EncoderStage
from vmkla.models.pickles import read_pickle
from vmkla.models.ss2d import SS2D, VSSBlock
from vmkla.models.vmkla_unet import VMKLAUNet
from vmkla.ops.scan import ROUTES

MIN_FILLED_FRACTION = 0.95
"""Share of the encoder's values that a checkpoint must provide."""


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a checkpoint.

    Attributes:
        loaded: keys of the checkpoint that were used.
        missing: keys that the encoder needs and the checkpoint does not have.
        unused: keys of the checkpoint that the encoder does not have.
        filled_fraction: share of the encoder's values that were set, 0 to 1.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    filled_fraction: float

    def __str__(self) -> str:
        """Describe the result in one line."""
        parts = [f"{len(self.loaded)} tensors fill {self.filled_fraction:.1%} of the encoder"]
        parts += [
            f"{len(keys)} {name} ({_some(keys)})"
            for name, keys in (("missing", self.missing), ("unused", self.unused))
            if keys
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class _Entry:
    """One tensor of the checkpoint and the parameters that it fills.

    Attributes:
        key: name in the checkpoint.
        shape: required shape.
        targets: names of this network's parameters.
        convert: function from the tensor to one tensor for each target.
    """

    key: str
    shape: tuple[int, ...]
    targets: tuple[Tensor, ...]
    convert: Callable[[Tensor], tuple[Tensor, ...]]


def load_vmamba_encoder(model: VMKLAUNet, path: Path | str) -> LoadReport:
    """Fill the encoder from a VMamba v0 checkpoint; the decoder keeps its weights.

    The weights may be under ``model``, under ``model_ema``, or at the top of the file. Of a stage with more
    blocks than the encoder's, the first ones are used. An error leaves the network unchanged.

    Args:
        model: the network; its encoder is changed in place.
        path: a ``.pth`` file.
    Returns:
        What was loaded, missing and unused.
    Raises:
        BadInputError: the file is missing, unreadable, or holds no VMamba encoder.
        ArtefactMismatchError: shapes differ, a number is not finite, or less than 95 % of the encoder would
            be filled.
    """
    path = Path(path)
    weights = _find_weights(read_pickle(path), path)
    loaded: list[str] = []
    missing: list[str] = []
    copies: list[tuple[Tensor, Tensor]] = []
    for entry in _entries(model):
        if entry.key not in weights:
            missing.append(entry.key)
            continue
        value = weights[entry.key]
        if tuple(value.shape) != entry.shape:
            raise ArtefactMismatchError(
                f"{path}: {entry.key} is {tuple(value.shape)}, this encoder needs {entry.shape}",
                hint="The public VMamba-T and VMamba-S v0 weights fit the presets small, tiny and large.",
            )
        if not torch.isfinite(value).all():
            raise ArtefactMismatchError(
                f"{path}: {entry.key} holds numbers that are not finite", hint="Fetch the file again."
            )
        loaded.append(entry.key)
        copies.extend(zip(entry.targets, entry.convert(value.float()), strict=True))
    filled = sum(target.numel() for target, _ in copies)
    fraction = filled / sum(parameter.numel() for parameter in model.encoder.parameters())
    if fraction < MIN_FILLED_FRACTION:
        raise ArtefactMismatchError(
            f"{path} fills {fraction:.1%} of the encoder, at least {MIN_FILLED_FRACTION:.0%} is needed; "
            f"missing: {_some(missing)}",
            hint="Use a VMamba v0 checkpoint at least as deep as the preset's encoder.",
        )
    with torch.no_grad():
        for target, value in copies:
            target.copy_(value)
    unused = sorted(set(weights) - set(loaded))
    return LoadReport(tuple(loaded), tuple(missing), tuple(unused), fraction)


def _find_weights(content: object, path: Path) -> Mapping[str, Tensor]:
    """Find the state dict in a checkpoint."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates = [content.get("model"), content.get("model_ema"), content]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and "patch_embed.proj.weight" in candidate:
            return {str(key): value for key, value in candidate.items() if isinstance(value, Tensor)}
    raise BadInputError(
        f"{path} holds no VMamba encoder: no patch_embed.proj.weight under model, model_ema or at the top",
        hint="Use a VMamba v0 classification checkpoint (.pth).",
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def _as_is(key: str, target: Tensor) -> _Entry:
    return _Entry(key, tuple(target.shape), (target,), lambda value: (value,))


def _entries(model: VMKLAUNet) -> list[_Entry]:
    """Return an entry for every tensor of a checkpoint that fills the whole encoder."""
    embed = model.encoder.patch_embed
    entries = [_as_is(f"patch_embed.{name}", parameter) for name, parameter in embed.named_parameters()]
    for i, stage in enumerate(cast(Iterable[EncoderStage], model.encoder.stages)):
        for j, block in enumerate(cast(Iterable[VSSBlock], stage.blocks)):
            entries.extend(_block_entries(f"layers.{i}.blocks.{j}", block))
        if stage.downsample is not None:
            entries.extend(
                _as_is(f"layers.{i}.downsample.{name}", parameter)
                for name, parameter in stage.downsample.named_parameters()
            )
    return entries


def _block_entries(prefix: str, block: VSSBlock) -> list[_Entry]:
    inner = f"{prefix}.self_attention"
    plain = {
        f"{prefix}.ln_1": block.norm,
        f"{inner}.conv2d": block.conv,
        f"{inner}.out_norm": block.out_norm,
        f"{inner}.out_proj": block.out_proj,
    }
    entries = [
        _as_is(f"{key}.{name}", parameter)
        for key, module in plain.items()
        for name, parameter in module.named_parameters()
    ]
    d, dim = block.in_proj_x.weight.shape
    entries.append(
        _Entry(
            f"{inner}.in_proj.weight",
            (2 * d, dim),
            (block.in_proj_x.weight, block.in_proj_z.weight),
            lambda value: (value[:d], value[d:]),
        )
    )
    return entries + _scan_entries(inner, block.scan)


def _scan_entries(prefix: str, scan: SS2D) -> list[_Entry]:
    d, n, R = scan.d, scan.d_state, scan.dt_rank

    def p_proj(value: Tensor) -> tuple[Tensor, ...]:
        # Per route the rows [dt | B | C]; here all routes' B, then all C, then all dt.
        dt, B, C = value[:, :R], value[:, R : R + n], value[:, R + n :]  # (4, R or n, d)
        return (torch.cat([part.reshape(-1, d) for part in (B, C, dt)]),)

    return [
        _Entry(f"{prefix}.x_proj_weight", (ROUTES, R + 2 * n, d), (scan.p_proj.weight,), p_proj),
        _Entry(
            f"{prefix}.dt_projs_weight",
            (ROUTES, d, R),
            (scan.dt_weight,),
            lambda value: (value.transpose(1, 2),),
        ),
        _as_is(f"{prefix}.dt_projs_bias", scan.delta_bias),
        _Entry(
            f"{prefix}.A_logs",
            (ROUTES * d, n),
            (scan.A_log,),
            lambda value: (value.reshape(ROUTES, d, n).transpose(1, 2),),
        ),
        # The skip D u is the same on every route, so only the sum of D counts.
        _Entry(f"{prefix}.Ds", (ROUTES * d,), (scan.D,), lambda value: (value.reshape(ROUTES, d).sum(0),)),
    ]
