"""Each rewritten part against the module that it stands for."""

from __future__ import annotations

import pytest
import torch

from tests.tolerances import tol
from vmkla.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmkla.errors import UsageError
from vmkla.export.decoder_rewrites import rewrite_decoder
from vmkla.export.rewrites import FoldedHead, FoldedPatchEmbed, rewrite
from vmkla.models.decoder import BLOCKS, SegmentationHead
from vmkla.models.encoder import PatchEmbed
from vmkla.models.vmkla_unet import build_model


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))


@pytest.mark.parametrize("patch", [2, 4])
def test_patch_embedding(patch: int) -> None:
    torch.manual_seed(patch)
    embed = PatchEmbed(patch, 6)
    randomise(embed)
    frames = torch.randint(0, 256, (2, 8, 12, 3)).float()
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    expected = embed(((frames / 255 - mean) / std).permute(0, 3, 1, 2))
    close = tol(("rewrite", "module"), torch.float32)
    torch.testing.assert_close(FoldedPatchEmbed(embed)(frames), expected, **close)
    planes = FoldedPatchEmbed(embed, channels_first=True)
    torch.testing.assert_close(planes(frames.permute(0, 3, 1, 2)), expected, **close)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("dim", "scale"), [(16, 4), (6, 2)])
def test_head(dim: int, scale: int, classes: int) -> None:
    torch.manual_seed(dim + classes)
    head = SegmentationHead(dim, classes, scale)
    randomise(head)
    x = torch.randn(2, 3, 5, dim)
    expected = head(x)
    assert expected.shape == (2, classes, 3 * scale, 5 * scale)
    torch.testing.assert_close(FoldedHead(head)(x), expected, **tol(("rewrite", "module"), torch.float32))


@pytest.mark.parametrize("dim", [8, 24])  # one head and three
@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_decoder_blocks(block: str, dim: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=8, head_dim=8, d_state=4)
    plain = torch.nn.Sequential(BLOCKS[block](dim, config, 0.0, "reference")).eval()  # type: ignore[index]
    x = torch.randn(2, 4, 6, dim)
    with torch.no_grad():
        expected = plain(x)
        names = {name for name, _ in plain.named_parameters()}
        rewrite_decoder(plain)
        torch.testing.assert_close(plain(x), expected, **tol(("rewrite", "module"), torch.float32))
    assert {name for name, _ in plain.named_parameters()} == names  # calibration finds layers by them


def test_the_network_itself_is_left_alone() -> None:
    model = build_model(
        ModelConfig(dim=8, encoder_depths=(1, 1, 1, 1), decoder_depths=(1, 1, 1, 1), head_dim=8)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rewritten = rewrite(model)
    with torch.no_grad():
        for parameter in rewritten.parameters():
            parameter.zero_()
    assert model.training
    assert isinstance(model.head, SegmentationHead)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def small(block: str = "mkcsa") -> ModelConfig:
    return ModelConfig(
        dim=8, encoder_depths=(1, 1, 1, 1), decoder_depths=(1, 1, 1, 1), head_dim=8, decoder_block=block
    )


@pytest.mark.parametrize(
    ("block", "scan"),
    [
        ("mkcsa", "encoder.stages.3.blocks.0.scan"),
        ("ss2d", "decoder.stages.0.blocks.0.scan"),
        ("csa", "decoder.stages.0.blocks.0.main.mixer"),
    ],
)
def test_a_scan_beyond_half_stays_float32_with_its_norm(block: str, scan: str) -> None:
    """Scan and norm give what they would in half, where half can hold it, and survive where it cannot."""
    torch.manual_seed(0)
    model = build_model(small(block)).eval()
    half, wide = rewrite(model, half=True), rewrite(model, half=True, wide_scans=(scan,))
    holder = scan.rpartition(".")[0].removesuffix(".main")
    types = {name: value.dtype for name, value in wide.named_parameters()}
    islands = {name for name, dtype in types.items() if dtype == torch.float32}
    assert {f"{holder}.out_norm.weight", f"{holder}.out_norm.bias", f"{scan}.dt_weight"} <= islands
    assert types[f"{scan}.p_proj.weight"] == torch.float16
    others = {name for name in islands if not name.startswith((scan, f"{holder}.out_norm"))}
    assert {name.rsplit(".", 1)[-1] for name in others} == {"A_log", "D", "delta_bias"}

    def result(network: torch.nn.Module, scale: float) -> torch.Tensor:
        """What the norm makes of the scan."""
        with torch.no_grad():
            network.get_submodule(scan).D.fill_(scale)  # type: ignore[operator]
            u = torch.randn(1, 3, 4, network.get_submodule(scan).D.numel()).half()  # type: ignore[operator,union-attr]
            out = network.get_submodule(f"{holder}.out_norm")(network.get_submodule(scan)(u))
        assert out.dtype == torch.float16
        return out

    torch.manual_seed(1)
    narrow = result(half, 4.0)
    torch.manual_seed(1)
    torch.testing.assert_close(result(wide, 4.0), narrow, **tol(("float32 scan", "half scan"), torch.float16))
    assert not result(half, 1e6).isfinite().all()
    assert result(wide, 1e6).isfinite().all()


def test_only_scans_can_stay_float32() -> None:
    with pytest.raises(UsageError, match="LayerNorm, expected a scan"):
        rewrite(build_model(small()), half=True, wide_scans=("encoder.stages.0.blocks.0.norm",))
