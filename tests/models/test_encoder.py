"""Patch embedding and merging against Swin's slices; the sizes of what the encoder hands on."""

from __future__ import annotations

import torch

from tests.tolerances import tol
from vmkla.config import ModelConfig
from vmkla.models.encoder import Encoder, PatchEmbed, PatchMerging


def test_patch_embedding_is_a_product_with_each_patch() -> None:
    torch.manual_seed(12)
    embed = PatchEmbed(4, 6).double()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    for i in range(2):
        for j in range(3):
            patch = x[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten(1)  # (b, 48)
            token = patch @ embed.proj.weight.flatten(1).T + embed.proj.bias
            expected = torch.nn.functional.layer_norm(token, (6,), embed.norm.weight, embed.norm.bias)
            torch.testing.assert_close(
                embed(x)[:, i, j], expected, **tol(("module", "definition"), torch.float64)
            )


def test_patch_merging_concatenates_as_swin_does() -> None:
    torch.manual_seed(13)
    merging = PatchMerging(3).double()
    torch.nn.init.normal_(merging.norm.weight)
    torch.nn.init.normal_(merging.norm.bias)
    x = torch.randn(2, 4, 6, 3, dtype=torch.float64)
    slices = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    expected = merging.reduction(merging.norm(torch.cat(slices, dim=-1)))
    actual = merging(x)
    assert actual.shape == (2, 2, 3, 6)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_outputs_halve_in_size_and_double_in_channels() -> None:
    encoder = Encoder(ModelConfig(dim=4, encoder_depths=(1, 2, 1, 1), d_state=2))
    outputs = encoder(torch.randn(2, 3, 64, 96))
    assert [tuple(output.shape) for output in outputs] == [
        (2, 16, 24, 4),
        (2, 8, 12, 8),
        (2, 4, 6, 16),
        (2, 2, 3, 32),
    ]


def test_stochastic_depth_grows_over_the_blocks() -> None:
    encoder = Encoder(ModelConfig(dim=4, encoder_depths=(1, 2, 1, 1), d_state=2, drop_path=0.2))
    rates = [block.drop_path.rate for stage in encoder.stages for block in stage.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2]))
