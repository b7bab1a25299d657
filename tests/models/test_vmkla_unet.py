"""The whole network: sizes, presets, gradients, tracing, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tolerances import tol
from vmkla.config import DECODER_BLOCKS, PRESETS, ModelConfig, get_preset
from vmkla.errors import ShapeError, UsageError
from vmkla.models import build_model, parameter_count


def micro(**changes: Any) -> ModelConfig:
    """A network small enough for the reference scan."""
    values: dict[str, Any] = {
        "dim": 16,
        "encoder_depths": (1, 1, 1, 1),
        "decoder_depths": (1, 1, 1, 1),
        "head_dim": 16,
        "d_state": 2,
        "kan_hidden": 6,
    }
    return ModelConfig(**(values | changes))


@pytest.mark.parametrize(
    ("name", "millions"), [("small", 44.405), ("tiny", 36.050), ("large", 65.887), ("nano", 3.710)]
)
def test_preset_has_its_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build_model(PRESETS[name])
    assert parameter_count(model) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_small_is_as_large_as_the_papers() -> None:
    with torch.device("meta"):
        assert 43e6 <= parameter_count(build_model(get_preset("small"))) <= 46e6


@pytest.mark.parametrize("name", list(PRESETS))
def test_preset_runs_on_a_shape_alone(name: str) -> None:
    with torch.device("meta"):
        model = build_model(PRESETS[name]).eval()
        logits = model(torch.empty(2, 3, 256, 320))
    assert logits.shape == (2, 1, 256, 320)


@pytest.mark.parametrize("block", DECODER_BLOCKS)
@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 32)])
def test_every_decoder_takes_any_multiple_of_32(block: Any, height: int, width: int) -> None:
    torch.manual_seed(25)
    model = build_model(micro(decoder_block=block, num_classes=3)).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 3, height, width))
    assert logits.shape == (1, 3, height, width)
    assert torch.isfinite(logits).all() and logits.std() > 0


@pytest.mark.parametrize("block", DECODER_BLOCKS)
def test_every_parameter_learns(block: Any) -> None:
    torch.manual_seed(26)
    model = build_model(micro(decoder_block=block, drop_path=0.0))
    logits = model(torch.randn(2, 3, 64, 32))
    (logits * torch.randn_like(logits)).sum().backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle, f"no gradient reaches {idle}"


@pytest.mark.parametrize(
    ("shape", "seen", "padded"),
    [
        ((1, 3, 40, 64), "40x64", "64x64"),
        ((1, 3, 256, 250), "256x250", "256x256"),
        ((1, 3, 0, 32), "0x32", "32x32"),
    ],
)
def test_other_sizes_are_refused_with_the_padding(shape: tuple[int, ...], seen: str, padded: str) -> None:
    model = build_model(micro())
    with pytest.raises(ShapeError, match=f"(?s)input is {seen}.*multiples of 32.*{padded}"):
        model(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)])
def test_other_layouts_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(b, 3, H, W\)"):
        build_model(micro())(torch.zeros(shape))


def test_samples_do_not_see_each_other() -> None:
    torch.manual_seed(27)
    model = build_model(micro()).eval()
    x = torch.randn(3, 3, 32, 64)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(sample[None]) for sample in x])
    torch.testing.assert_close(together, alone, **tol(("batch", "single"), torch.float32))


def test_every_pixel_sees_the_whole_image() -> None:
    """The scan and the attention are global: a corner pixel moves the opposite corner's logit."""
    torch.manual_seed(28)
    model = build_model(micro()).eval()
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    model(x)[0, 0, -1, -1].backward()
    assert x.grad is not None and x.grad[0, :, 0, 0].abs().max() > 0


def test_training_with_stochastic_depth_differs_from_evaluation() -> None:
    torch.manual_seed(29)
    model = build_model(micro(drop_path=0.5))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first, second = model.train()(x), model(x)
        assert not torch.equal(first, second)
        assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("block", DECODER_BLOCKS)
def test_half_precision_agrees(block: Any) -> None:
    torch.manual_seed(30)
    model = build_model(micro(decoder_block=block, dim=32)).eval()
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        wide = torch.sigmoid(model(x))
        narrow = torch.sigmoid(model.half()(x.half()))
    assert narrow.dtype == torch.float16
    torch.testing.assert_close(narrow.float(), wide, **tol(("float32", "half"), torch.float16))


@pytest.mark.parametrize(
    "block",
    # Tracing takes seconds: the paper's block and the baseline stand for the rest in the fast tier.
    [
        block if block in ("mkcsa", "ss2d") else pytest.param(block, marks=pytest.mark.slow)
        for block in DECODER_BLOCKS
    ],
)
def test_export_traces_it_with_any_batch(block: Any) -> None:
    torch.manual_seed(31)
    model = build_model(micro(decoder_block=block)).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(model, (torch.randn(2, 3, 32, 64),), dynamic_shapes=({0: batch},))
    x = torch.randn(3, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), **tol(("eager", "exported"), torch.float32))


def test_tracing_leaves_no_traces_in_the_model() -> None:
    """Tables cached while tracing would be stand-ins, and break the next eager call of that size."""
    model = build_model(micro()).eval()
    x = torch.randn(1, 3, 224, 160)
    torch.export.export(model, (x,))
    with torch.no_grad():
        assert torch.isfinite(model(x)).all()


@pytest.mark.slow
def test_compiles_without_a_graph_break() -> None:
    torch.manual_seed(32)
    model = build_model(micro(), backend="reference").eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), **tol(("eager", "exported"), torch.float32))


def test_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4 channels a head"):
        build_model(micro(dim=10, head_dim=4))


def test_other_patches_are_expanded_back() -> None:
    model = build_model(micro(patch=2)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 16, 32)).shape == (1, 1, 16, 32)


def test_bfloat16_gradients_point_where_float32_ones_do() -> None:
    """A sum in 16 bits over all pixels stalls: torch's LayerNorm loses 0.98 of the head's gradient here."""
    torch.manual_seed(3)
    model = build_model(micro()).train()
    images = torch.randn(4, 3, 128, 128)
    target = (torch.rand(4, 1, 128, 128) > 0.7).float()

    def gradients(half: bool) -> dict[str, torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(images)
        torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target).backward()
        return {name: p.grad.flatten().clone() for name, p in model.named_parameters()}

    wide, narrow = gradients(half=False), gradients(half=True)
    for name, expected in wide.items():
        error = ((narrow[name] - expected).norm() / expected.norm()).item()
        assert error < 0.6, f"{name} is off by {error:.2f} of itself"  # rounding makes up to 0.4
