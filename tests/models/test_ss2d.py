"""The scan module: initialisation, precision, and what it hands to the op."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import softplus

from tests.tolerances import tol
from vmkla.models.ss2d import SS2D, VSSBlock, dt_rank_of
from vmkla.ops.scan import selective_scan2d_reference


def test_initialisation_is_vmambas() -> None:
    torch.manual_seed(19)
    scan = SS2D(24, 6, 3)
    A = -torch.exp(scan.A_log)
    expected = -torch.arange(1.0, 7.0)[None, :, None].expand(4, 6, 24)
    torch.testing.assert_close(A, expected, **tol(("module", "definition"), torch.float32))
    assert (scan.D == 4).all(), "one for each route"
    delta = softplus(scan.delta_bias)
    assert delta.min() >= 0.999e-3 and delta.max() <= 0.1001
    # Log-uniform: about half lies below the geometric middle, 0.01; uniform would leave 9 %.
    assert 0.3 < (delta < 1e-2).float().mean().item() < 0.7
    assert scan.dt_weight.abs().max() <= 3**-0.5


@pytest.mark.parametrize(("dim", "rank"), [(4, 1), (16, 1), (17, 2), (96, 6), (768, 48)])
def test_rank_of_delta(dim: int, rank: int) -> None:
    assert dt_rank_of(dim) == rank


def test_module_is_the_op_on_its_projections() -> None:
    torch.manual_seed(20)
    scan = SS2D(8, 3, 2, backend="reference")
    u = torch.randn(2, 3, 4, 8)
    expected = selective_scan2d_reference(
        u, u @ scan.p_proj.weight.T, scan.dt_weight, -scan.A_log.exp(), scan.D, scan.delta_bias
    )
    torch.testing.assert_close(scan(u), expected, **tol(("module", "definition"), torch.float32))


def test_half_keeps_the_recurrence_in_float32() -> None:
    torch.manual_seed(21)
    block = VSSBlock(16, d_state=4)
    x = torch.randn(1, 6, 5, 16)
    with torch.no_grad():
        wide = block(x)
        narrow = block.half()(x.half())
    assert {block.scan.A_log.dtype, block.scan.D.dtype, block.scan.delta_bias.dtype} == {torch.float32}
    assert block.scan.dt_weight.dtype == block.in_proj_x.weight.dtype == narrow.dtype == torch.float16
    torch.testing.assert_close(narrow.float(), wide, **tol(("float32", "half"), torch.float16))


def test_every_parameter_learns() -> None:
    torch.manual_seed(22)
    block = VSSBlock(8, d_state=3)
    y = block(torch.randn(2, 4, 3, 8))
    (y * torch.randn_like(y)).sum().backward()
    idle = [key for key, parameter in block.named_parameters() if not parameter.grad.any()]
    assert not idle, f"no gradient reaches {idle}"


def test_backend_that_does_not_exist_is_named() -> None:
    from vmkla.errors import UsageError

    with pytest.raises(UsageError, match="abacus"):
        SS2D(4, 2, 1, backend="abacus")(torch.randn(1, 2, 2, 4))
