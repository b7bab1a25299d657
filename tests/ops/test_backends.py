"""The dispatcher: what runs where, and what is refused."""

from __future__ import annotations

import importlib
import importlib.util
import logging

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vmkla.errors import MissingDependencyError, UsageError
from vmkla.ops import UniformGrid, backends, bspline_basis, selective_scan2d


def fake_inputs(device: str) -> list[torch.Tensor]:
    """Arguments with b, H, W, d, n, R = 2, 9, 10, 6, 4, 3; to be made inside a FakeTensorMode."""
    shapes = [(2, 9, 10, 6), (2, 9, 10, 4 * 11), (4, 3, 6), (4, 4, 6), (6,), (4, 6)]
    return [torch.empty(shape, device=device) for shape in shapes]


@pytest.mark.parametrize("backend", backends.GPU_BACKENDS)
def test_gpu_backends_refuse_the_cpu(backend: str) -> None:
    with pytest.raises(UsageError, match=f"on cpu, {backend} runs on an NVIDIA GPU"):
        backends.choose(backend, torch.zeros(1))


@pytest.mark.parametrize("backend", backends.GPU_BACKENDS)
def test_gpu_backends_refuse_float64(backend: str) -> None:
    with FakeTensorMode(), pytest.raises(UsageError, match="float64"):
        backends.choose(backend, torch.empty(1, device="cuda", dtype=torch.float64))


def test_triton_is_there() -> None:
    """It is a dependency of the tests: nothing here may pass by its absence."""
    with FakeTensorMode():
        assert backends.choose("triton", torch.empty(1, device="cuda")) == "triton"


def test_auto_takes_the_first_on_cuda(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    absent: set[str] = set()

    def why(backend: str) -> str:
        return f"no {backend}" if backend in absent else ""

    monkeypatch.setattr(backends, "_why_missing", why)
    backends._report.cache_clear()
    with FakeTensorMode(), caplog.at_level(logging.INFO, logger="vmkla.ops.backends"):
        x = torch.empty(1, device="cuda")
        assert backends.choose("auto", x) == "mamba_ssm"
        absent.add("mamba_ssm")
        assert backends.choose("auto", x) == "triton"
        absent.add("triton")
        assert backends.choose("auto", x) == "reference"
        assert backends.choose("auto", x.double()) == "reference"
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split("backend ")[1].split()[0] for line in lines] == [
        "mamba_ssm",
        "triton",
        "reference",
        "reference",
    ]
    assert "no mamba_ssm" in lines[1] and "float64" in lines[3]
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO, logging.INFO, logging.WARNING, logging.WARNING]


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise MissingDependencyError("no triton here", hint="Run: pip install triton")

    monkeypatch.setattr(backends, "triton_scan", gone)
    with FakeTensorMode(), pytest.raises(MissingDependencyError, match="no triton here"):
        backends.choose("triton", torch.empty(1, device="cuda"))


def test_mamba_without_its_kernel_is_absent(caplog: pytest.LogCaptureFixture) -> None:
    """The package as the tests install it, and no package at all, are both told apart from a working one."""
    if importlib.util.find_spec("selective_scan_cuda") is not None:
        assert backends.mamba_interface().selective_scan_fn
        return
    installed = importlib.util.find_spec("mamba_ssm") is not None
    seen = "one that is installed cannot be imported: .*selective_scan_cuda" if installed else "not installed"
    with FakeTensorMode(), pytest.raises(MissingDependencyError, match=seen) as caught:
        backends.choose("mamba_ssm", torch.empty(1, device="cuda"))
    # The package without a kernel must go first, and must not come back out of pip's cache.
    assert caught.value.hint is not None and "--no-cache-dir" in caught.value.hint
    assert caught.value.hint.startswith("Run: pip uninstall --yes mamba-ssm && ")
    backends._why_missing.cache_clear()
    backends._report.cache_clear()
    with FakeTensorMode(), caplog.at_level(logging.INFO, logger="vmkla.ops.backends"):
        assert backends.choose("auto", torch.empty(1, device="cuda")) == "triton"
    assert "backend triton (the mamba_ssm backend needs" in caplog.text and "Run:" not in caplog.text


def test_a_package_that_breaks_in_any_way_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(f"{name} and this torch do not fit")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(MissingDependencyError, match="this torch do not fit"):
        backends.mamba_interface.__wrapped__()


def test_shapes_of_the_fake_kernels() -> None:
    """What torch.compile plans with. The ops alone: autograd on fake CUDA tensors needs CUDA."""
    with FakeTensorMode():
        inputs = fake_inputs("cuda")
        y = selective_scan2d(*inputs, backend="triton")
        assert y.shape == inputs[0].shape and y.device.type == "cuda"
        _, states, sums = torch.ops.vmkla.selective_scan2d_triton(*inputs)
        assert states.shape == (2, 4, 2, 4, 6) and sums.shape == (2, 4, 2, 6)
        gradients = torch.ops.vmkla.selective_scan2d_triton_backward(y, *inputs, states, sums)
        for leaf, gradient in zip(inputs, gradients, strict=True):
            assert gradient.shape == leaf.shape and gradient.device == leaf.device


def test_the_bases_on_cuda_take_triton_where_the_knots_are_uniform_and_cubic(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    absent: list[str] = []
    monkeypatch.setattr(
        backends, "_why_missing", lambda backend: f"no {backend}" if backend in absent else ""
    )
    backends._report.cache_clear()
    with FakeTensorMode(), caplog.at_level(logging.INFO, logger="vmkla.ops.backends"):
        x = torch.empty(1, device="cuda")
        for backend in ("auto", "mamba_ssm", "triton"):
            assert backends.choose_basis(backend, x.bfloat16(), uniform_cubic=True) == "triton"
            assert backends.choose_basis(backend, x, uniform_cubic=False) == "reference"
        assert backends.choose_basis("auto", x.double(), uniform_cubic=True) == "reference"
        with pytest.raises(UsageError, match="float64"):
            backends.choose_basis("triton", x.double(), uniform_cubic=True)
        absent.append("triton")
        assert backends.choose_basis("auto", x, uniform_cubic=True) == "reference"
    for message in (
        "bases on cuda:0 torch.bfloat16: backend triton",
        "uniform cubic knots only",
        "no triton",
    ):
        assert message in caplog.text


def test_the_bases_by_triton_need_a_gpu() -> None:
    """As the scan: what was asked for by name and cannot run is an error."""
    grid = UniformGrid.over(-1, 1, 5, 3)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    knots = grid.knots(5, 3)
    with pytest.raises(UsageError, match="on cpu, triton runs on an NVIDIA GPU"):
        bspline_basis(x, knots, 3, uniform=grid, backend="triton")
    expected = bspline_basis(x, knots, 3, backend="reference")
    assert torch.equal(bspline_basis(x, knots, 3, backend="triton"), expected)
    assert torch.equal(bspline_basis(x, knots, 3, uniform=grid, backend="mamba_ssm"), expected)


def test_the_fake_bases_have_the_shapes_of_the_real_ones() -> None:
    grid = UniformGrid.over(-1, 1, 5, 3)
    with FakeTensorMode():
        x = torch.empty(3, 4, dtype=torch.float16, device="cuda").T
        knots = torch.empty(12, device="cuda")
        bases = bspline_basis(x, knots, 3, uniform=grid)
        arguments = (knots, 3, grid.grid_min, grid.step, "triton")
        gradient = torch.ops.vmkla.bspline_basis_backward(bases, x, *arguments)
    assert bases.shape == (4, 3, 8) and bases.dtype == gradient.dtype == torch.float16
    assert gradient.shape == x.shape and gradient.is_contiguous() and gradient.device.type == "cuda"


def test_torch_compile_sees_one_graph() -> None:
    """The choice of a backend is made while tracing and leaves no break behind."""
    g = torch.Generator().manual_seed(1)
    inputs = [torch.randn(1, 2, 3, 4, generator=g), torch.randn(1, 2, 3, 20, generator=g)]
    inputs += [torch.randn(4, 1, 4, generator=g), -torch.rand(4, 2, 4, generator=g)]
    inputs += [torch.randn(4, generator=g), torch.randn(4, 4, generator=g)]
    for tensor in inputs:
        tensor.requires_grad_()
    compiled = torch.compile(lambda *t: selective_scan2d(*t), backend="aot_eager", fullgraph=True)
    knots = UniformGrid.over(-1, 1, 5, 3).knots(5, 3)
    bases = torch.compile(
        lambda x: bspline_basis(x, knots, 3, backend="triton"), backend="aot_eager", fullgraph=True
    )
    assert torch.equal(
        bases(inputs[0].detach()), bspline_basis(inputs[0].detach(), knots, 3, backend="reference")
    )
    y, expected = compiled(*inputs), selective_scan2d(*inputs)
    assert torch.equal(y, expected)
    for a, b in zip(
        torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        assert torch.equal(a, b)
