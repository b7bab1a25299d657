"""The layout in which mamba-ssm gets the four routes, through its own ``selective_scan_ref`` on the CPU.

The package is installed without its CUDA kernel (see the Makefile). Its ``__init__`` imports language models,
and the module in question imports the kernel: neither exists here, so the module is imported beside both.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.tolerances import tol
from vmkla.ops import backends
from vmkla.ops.mamba import sequence_arguments
from vmkla.ops.scan import route_orders, selective_scan2d_reference

NAMES = ("u", "p", "dt_weight", "A", "D", "delta_bias")
Scan = Callable[..., Tensor]


@pytest.fixture(scope="module")
def selective_scan_ref() -> Iterator[Scan]:
    """mamba-ssm's reference in plain torch."""
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("mamba-ssm is not installed; run: make install")
    package = types.ModuleType("mamba_ssm")
    package.__path__ = list(spec.submodule_search_locations)
    before = dict(sys.modules)
    try:
        sys.modules |= {"mamba_ssm": package, "selective_scan_cuda": types.ModuleType("selective_scan_cuda")}
        yield importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_ref
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] in ("mamba_ssm", "selective_scan_cuda")]:
            del sys.modules[name]
        sys.modules |= {name: module for name, module in before.items() if name.startswith("mamba_ssm")}


@pytest.fixture
def with_reference(selective_scan_ref: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The op finds the package, with its reference where the CUDA kernel would be."""
    interface = types.SimpleNamespace(selective_scan_fn=selective_scan_ref)
    monkeypatch.setattr(backends, "mamba_interface", lambda: interface)


def scan_inputs(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    b, H, W, d, n, R = shape
    g = torch.Generator().manual_seed(seed)
    A = -0.1 - 4 * torch.rand(4, n, d, generator=g)
    u, p = torch.randn(b, H, W, d, generator=g), torch.randn(b, H, W, 4 * (2 * n + R), generator=g)
    weight = torch.randn(4, R, d, generator=g) * R**-0.5
    D, bias = torch.randn(d, generator=g), torch.randn(4, d, generator=g) - 2
    return [u.to(dtype), p.to(dtype), weight.to(dtype), A, D, bias]


def run(inputs: list[Tensor]) -> Tensor:
    result: Tensor = torch.ops.vmkla.selective_scan2d(*inputs, "mamba_ssm")
    return result


@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 4, 3, 2), (1, 6, 1, 5, 16, 6), (3, 2, 7, 1, 1, 1), (0, 3, 4, 5, 2, 1)]
)
def test_mamba_is_the_reference(with_reference: None, shape: tuple[int, ...]) -> None:
    inputs = [t.requires_grad_() for t in scan_inputs(shape, seed=sum(shape))]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y, wanted = run(inputs), selective_scan2d_reference(*exact)
    limits = tol(("mamba_ssm", "reference"), torch.float32)
    scale = max([1.0, *wanted.detach().abs().flatten().tolist()])
    torch.testing.assert_close(y.double() / scale, wanted / scale, **limits)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(y, inputs, grad_y)
    for name, a, b in zip(NAMES, found, torch.autograd.grad(wanted, exact, grad_y.double()), strict=True):
        scale = max([1.0, *b.abs().flatten().tolist()])
        torch.testing.assert_close(
            a.double() / scale, b / scale, **limits, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_half_goes_in_as_float32(with_reference: None) -> None:
    inputs = scan_inputs((1, 3, 4, 5, 4, 2), 1, torch.bfloat16)
    y = run(inputs)
    assert y.dtype == torch.bfloat16
    wanted = selective_scan2d_reference(*(t.double() for t in inputs))
    torch.testing.assert_close(y.double(), wanted, atol=0.05, rtol=2**-8)


def test_what_the_cuda_kernel_demands() -> None:
    """Its checks: float32 throughout, B and C with a group axis, unit stride along the sequence."""
    inputs = scan_inputs((2, 3, 4, 5, 6, 2), 2)
    u, p, dt_weight, A, _, delta_bias = inputs
    found = sequence_arguments(u, p, dt_weight, A, delta_bias, route_orders(3, 4))
    shapes = {name: tuple(value.shape) for name, value in found.items() if isinstance(value, Tensor)}
    assert shapes == {
        "u": (2, 20, 12),
        "delta": (2, 20, 12),
        "A": (20, 6),
        "B": (2, 4, 6, 12),
        "C": (2, 4, 6, 12),
        "delta_bias": (20,),
    }
    assert found["D"] is None and found["delta_softplus"] is True
    for name in ("u", "delta", "B", "C"):
        assert found[name].stride(-1) == 1 and found[name].dtype == torch.float32, name


@pytest.mark.slow
def test_torch_checks_the_op(with_reference: None) -> None:
    inputs = [t.requires_grad_() for t in scan_inputs((1, 2, 3, 4, 2, 1), 3)]
    torch.library.opcheck(torch.ops.vmkla.selective_scan2d.default, (*inputs, "mamba_ssm"))
