"""Loading VMamba v0 checkpoints, compared with VMamba's own formulation of its block."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, layer_norm, silu, softplus

from tests.tolerances import tol
from vmkla.config import PRESETS, ModelConfig
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.models import VMKLAUNet, load_vmamba_encoder

CONFIG = ModelConfig(
    dim=8, encoder_depths=(1, 2, 2, 1), decoder_depths=(1, 1, 1, 1), head_dim=8, d_state=3, kan_hidden=4
)
Weights = dict[str, Tensor]


def vmamba_weights(dim: int, depths: tuple[int, ...], n: int, scale: float = 0.3) -> Weights:
    """A state dict with VMamba v0's names and shapes, and random values."""
    weights: Weights = {
        "patch_embed.proj.weight": torch.randn(dim, 3, 4, 4),
        "patch_embed.proj.bias": torch.randn(dim),
        "patch_embed.norm.weight": torch.randn(dim),
        "patch_embed.norm.bias": torch.randn(dim),
    }
    for i, depth in enumerate(depths):
        c, d, rank = dim << i, 2 * (dim << i), -(-(dim << i) // 16)
        for j in range(depth):
            inner = f"layers.{i}.blocks.{j}.self_attention"
            weights |= {
                f"layers.{i}.blocks.{j}.ln_1.weight": 1 + scale * torch.randn(c),
                f"layers.{i}.blocks.{j}.ln_1.bias": scale * torch.randn(c),
                f"{inner}.x_proj_weight": scale * torch.randn(4, rank + 2 * n, d),
                f"{inner}.dt_projs_weight": torch.randn(4, d, rank),
                f"{inner}.dt_projs_bias": torch.randn(4, d) - 3,
                f"{inner}.A_logs": torch.randn(4 * d, n),
                f"{inner}.Ds": torch.randn(4 * d),
                f"{inner}.in_proj.weight": torch.randn(2 * d, c) / c**0.5,
                f"{inner}.conv2d.weight": scale * torch.randn(d, 1, 3, 3),
                f"{inner}.conv2d.bias": scale * torch.randn(d),
                f"{inner}.out_norm.weight": 1 + scale * torch.randn(d),
                f"{inner}.out_norm.bias": scale * torch.randn(d),
                f"{inner}.out_proj.weight": torch.randn(c, d) / d**0.5,
            }
        if i < 3:
            weights[f"layers.{i}.downsample.reduction.weight"] = torch.randn(2 * c, 4 * c) / (4 * c) ** 0.5
            weights[f"layers.{i}.downsample.norm.weight"] = 1 + scale * torch.randn(4 * c)
            weights[f"layers.{i}.downsample.norm.bias"] = scale * torch.randn(4 * c)
    weights["norm.weight"] = torch.randn(8 * dim)
    weights["head.weight"] = torch.randn(10, 8 * dim)
    return weights


def vss_block(weights: Weights, prefix: str, x: Tensor, n: int) -> Tensor:
    """VMamba's block as its paper draws it: cross-scan, four scans, cross-merge. (b, H, W, C)."""
    w = {key.removeprefix(f"{prefix}."): value for key, value in weights.items() if key.startswith(prefix)}
    s = {key.removeprefix("self_attention."): value for key, value in w.items()}
    b, H, W, c = x.shape
    L, d = H * W, s["out_norm.weight"].shape[0]
    normed = layer_norm(x, (c,), w["ln_1.weight"], w["ln_1.bias"], eps=1e-5)
    u, z = torch.einsum("bhwc,oc->bhwo", normed, s["in_proj.weight"]).chunk(2, dim=-1)
    u = silu(conv2d(u.permute(0, 3, 1, 2), s["conv2d.weight"], s["conv2d.bias"], padding=1, groups=d))
    both = torch.stack([u.flatten(2), u.transpose(2, 3).flatten(2)], dim=1)  # (b, 2, d, L)
    xs = torch.cat([both, both.flip(-1)], dim=1)  # (b, 4, d, L)
    rank = s["dt_projs_weight"].shape[2]
    projected = torch.einsum("bkdl,kcd->bkcl", xs, s["x_proj_weight"])
    dts, Bs, Cs = projected.split([rank, n, n], dim=2)
    deltas = torch.einsum("bkrl,kdr->bkdl", dts, s["dt_projs_weight"])
    deltas = softplus(deltas + s["dt_projs_bias"][None, :, :, None])
    A = -torch.exp(s["A_logs"]).view(4, d, n)
    h = torch.zeros(b, 4, d, n, dtype=x.dtype)
    ys = []
    for t in range(L):
        h = torch.exp(torch.einsum("bkd,kdn->bkdn", deltas[..., t], A)) * h
        h = h + torch.einsum("bkd,bkn,bkd->bkdn", deltas[..., t], Bs[..., t], xs[..., t])
        ys.append(torch.einsum("bkdn,bkn->bkd", h, Cs[..., t]))
    y = torch.stack(ys, dim=-1) + s["Ds"].view(4, d, 1) * xs  # (b, 4, d, L)
    rows = y[:, 0] + y[:, 2].flip(-1)
    columns = y[:, 1] + y[:, 3].flip(-1)
    merged = rows + columns.view(b, d, W, H).transpose(2, 3).flatten(2)  # (b, d, L)
    merged = merged.transpose(1, 2).reshape(b, H, W, d)
    out = layer_norm(merged, (d,), s["out_norm.weight"], s["out_norm.bias"], eps=1e-5) * silu(z)
    return x + torch.einsum("bhwd,cd->bhwc", out, s["out_proj.weight"])


def vmamba_features(weights: Weights, x: Tensor, depths: tuple[int, ...], n: int) -> list[Tensor]:
    """Outputs of VMamba's four stages before each downsampling."""
    x = conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4)
    x = x.permute(0, 2, 3, 1)
    x = layer_norm(x, x.shape[-1:], weights["patch_embed.norm.weight"], weights["patch_embed.norm.bias"])
    outputs = []
    for i, depth in enumerate(depths):
        for j in range(depth):
            x = vss_block(weights, f"layers.{i}.blocks.{j}", x, n)
        outputs.append(x)
        if i < 3:
            down = f"layers.{i}.downsample"
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
            x = layer_norm(x, x.shape[-1:], weights[f"{down}.norm.weight"], weights[f"{down}.norm.bias"])
            x = x @ weights[f"{down}.reduction.weight"].T
    return outputs


@pytest.fixture
def weights() -> Weights:
    torch.manual_seed(23)
    return vmamba_weights(8, (1, 2, 2, 1), 3)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_loaded_encoder_computes_what_vmamba_does(tmp_path: Path, weights: Weights, backend: str) -> None:
    torch.save({"model": weights}, tmp_path / "vmamba.pth")
    model = VMKLAUNet(CONFIG, backend=backend)
    load_vmamba_encoder(model, tmp_path / "vmamba.pth")
    x = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        actual = model.encoder(x)
        expected = vmamba_features(weights, x, (1, 2, 2, 1), 3)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tol(("encoder", "vmamba"), torch.float32))


@pytest.mark.parametrize("place", ["model", "model_ema", "top"])
def test_report_names_every_key(tmp_path: Path, weights: Weights, place: str) -> None:
    content = weights if place == "top" else {place: weights, "epoch": 3, "max_accuracy": 82.5}
    torch.save(content, tmp_path / "vmamba.pth")
    report = load_vmamba_encoder(VMKLAUNet(CONFIG), tmp_path / "vmamba.pth")
    assert report.filled_fraction == 1.0
    assert report.missing == ()
    assert report.unused == ("head.weight", "norm.weight")
    assert sorted((*report.loaded, *report.unused)) == sorted(weights)
    total = len(report.loaded)
    assert str(report) == f"{total} tensors fill 100.0% of the encoder; 2 unused (head.weight, norm.weight)"


def test_the_model_itself_is_preferred_to_its_average(tmp_path: Path, weights: Weights) -> None:
    average = {key: torch.zeros_like(value) for key, value in weights.items()}
    torch.save({"model_ema": average, "model": weights}, tmp_path / "vmamba.pth")
    model = VMKLAUNet(CONFIG)
    load_vmamba_encoder(model, tmp_path / "vmamba.pth")
    assert torch.equal(model.encoder.patch_embed.proj.bias, weights["patch_embed.proj.bias"])


def test_decoder_and_head_are_left_alone(tmp_path: Path, weights: Weights) -> None:
    torch.save(weights, tmp_path / "vmamba.pth")
    model = VMKLAUNet(CONFIG)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_vmamba_encoder(model, tmp_path / "vmamba.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith("encoder."), key


def test_deeper_checkpoint_fills_a_shallower_encoder(tmp_path: Path) -> None:
    torch.manual_seed(24)
    weights = vmamba_weights(8, (1, 2, 5, 1), 3)
    torch.save(weights, tmp_path / "deep.pth")
    model = VMKLAUNet(CONFIG)
    report = load_vmamba_encoder(model, tmp_path / "deep.pth")
    assert report.filled_fraction == 1.0
    spare = {key for key in report.unused if key.startswith("layers.2.blocks.")}
    assert {key.split(".")[3] for key in spare} == {"2", "3", "4"}
    assert torch.equal(
        model.encoder.stages[2].blocks[1].out_proj.weight,
        weights["layers.2.blocks.1.self_attention.out_proj.weight"],
    )


def test_too_shallow_a_checkpoint_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    torch.save(vmamba_weights(8, (1, 2, 1, 1), 3), tmp_path / "shallow.pth")
    model = VMKLAUNet(CONFIG)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ArtefactMismatchError, match=r"fills \d\d\.\d% of the encoder.*layers\.2\.blocks\.1"):
        load_vmamba_encoder(model, tmp_path / "shallow.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_few_missing_keys_are_reported(tmp_path: Path, weights: Weights) -> None:
    del weights["patch_embed.norm.bias"]
    torch.save(weights, tmp_path / "vmamba.pth")
    report = load_vmamba_encoder(VMKLAUNet(CONFIG), tmp_path / "vmamba.pth")
    assert report.missing == ("patch_embed.norm.bias",)
    assert 0.95 < report.filled_fraction < 1.0


def test_another_width_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    torch.save(vmamba_weights(16, (1, 2, 2, 1), 3), tmp_path / "wide.pth")
    with pytest.raises(ArtefactMismatchError, match=r"patch_embed\.proj\.weight is \(16, 3, 4, 4\)"):
        load_vmamba_encoder(VMKLAUNet(CONFIG), tmp_path / "wide.pth")


@pytest.mark.parametrize("content", [{"model": {"conv1.weight": torch.zeros(3)}}, [1, 2], {"epoch": 1}])
def test_a_foreign_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "foreign.pth")
    with pytest.raises(BadInputError, match="no VMamba encoder"):
        load_vmamba_encoder(VMKLAUNet(CONFIG), tmp_path / "foreign.pth")


def test_names_and_shapes_are_those_of_the_public_checkpoints() -> None:
    """Written down from VMamba's first version: its tiny model's first block."""
    from vmkla.models.vmamba import _entries

    with torch.device("meta"):
        shapes = {entry.key: entry.shape for entry in _entries(VMKLAUNet(PRESETS["tiny"]))}
    inner = "layers.0.blocks.0.self_attention"
    public = {
        "patch_embed.proj.weight": (96, 3, 4, 4),
        "patch_embed.proj.bias": (96,),
        "patch_embed.norm.weight": (96,),
        "patch_embed.norm.bias": (96,),
        "layers.0.blocks.0.ln_1.weight": (96,),
        "layers.0.blocks.0.ln_1.bias": (96,),
        f"{inner}.x_proj_weight": (4, 38, 192),
        f"{inner}.dt_projs_weight": (4, 192, 6),
        f"{inner}.dt_projs_bias": (4, 192),
        f"{inner}.A_logs": (768, 16),
        f"{inner}.Ds": (768,),
        f"{inner}.in_proj.weight": (384, 96),
        f"{inner}.conv2d.weight": (192, 1, 3, 3),
        f"{inner}.conv2d.bias": (192,),
        f"{inner}.out_norm.weight": (192,),
        f"{inner}.out_norm.bias": (192,),
        f"{inner}.out_proj.weight": (96, 192),
        "layers.0.downsample.reduction.weight": (192, 384),
        "layers.0.downsample.norm.weight": (384,),
        "layers.0.downsample.norm.bias": (384,),
    }
    first = {key for key in shapes if key.startswith(("patch_embed", "layers.0.blocks.0.", "layers.0.down"))}
    assert {key: shapes[key] for key in first} == public
    assert not any(key.startswith("layers.3.downsample") for key in shapes)


def test_the_training_configuration_inside_a_checkpoint_does_no_harm(
    tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public checkpoints carry a yacs CfgNode; it is read as a plain dictionary, without yacs."""
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    with monkeypatch.context() as patch:
        package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")
        module.CfgNode = node  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "yacs", package)
        patch.setitem(sys.modules, "yacs.config", module)
        config = node({"TRAIN": node({"EPOCHS": 300})})
        config.__dict__["__immutable__"] = True
        torch.save({"model": weights, "config": config}, tmp_path / "vmamba.pth")
    assert load_vmamba_encoder(VMKLAUNet(CONFIG), tmp_path / "vmamba.pth").filled_fraction == 1.0
