"""The GPU check's judgement of the torch backends, on backends that a CPU has."""

from __future__ import annotations

import warnings

import gpu_scan
import pytest
import torch
from common import Table
from gpu_separate import chunked_scan, four_separate_scans
from tolerances import tol

from vmkla.ops.scan import selective_scan2d_reference


def test_a_right_backend_passes() -> None:
    table, wrong = gpu_scan.check(
        "native", list(gpu_scan.RAGGED[:4]), [torch.float32], "cpu", repeatable=True
    )
    assert wrong == []
    assert table.markdown().count("torch.float32") == 4 + 1  # the rows, and the limits below them


def test_a_wrong_result_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_scan.run

    def spoilt(inputs: list[torch.Tensor], grad_y: torch.Tensor, backend: str) -> list[torch.Tensor]:
        found = right(inputs, grad_y, backend)
        found[4] = found[4] + 1e-2 * torch.randn(found[4].shape)  # the gradient of A
        found[6][0] = float("nan")
        return found

    monkeypatch.setattr(gpu_scan, "run", spoilt)
    _, wrong = gpu_scan.check("native", [(1, 3, 4, 5, 3, 2)], [torch.float32], "cpu", repeatable=True)
    assert [line.split(": ")[1].split()[0] for line in wrong] == ["A", "delta_bias", "two"]


def test_shapes_are_those_of_the_presets() -> None:
    assert gpu_scan.stages("small", 1)[0] == (1, 64, 64, 192, 16, 6)
    assert gpu_scan.stages("nano", 2)[3] == (2, 8, 8, 512, 16, 16)


def test_the_yardstick_is_exponentials_and_little_else() -> None:
    import triton
    from gpu_exponentials import exponentials
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {"out_ptr": "*fp32", "repeats": "i32", "WIDTH": "constexpr"}
    source = ASTSource(exponentials, signature, {"WIDTH": 512}, {(0,): [["tt.divisibility", 16]]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    assert kernel.asm["ptx"].count("ex2.approx") == 16


@pytest.mark.parametrize("shape", [(1, 3, 4, 5, 3, 2), (2, 11, 13, 6, 4, 3), (1, 16, 16, 8, 16, 1)])
@pytest.mark.parametrize("chunk", [8, 64])
def test_four_separate_scans_are_the_scan(shape: gpu_scan.Shape, chunk: int) -> None:
    inputs = [t.detach().double() for t in gpu_scan.scan_inputs(shape, torch.float32, "cpu")]

    def scan(*given: torch.Tensor) -> torch.Tensor:
        return chunked_scan(*given, chunk=chunk)

    found = four_separate_scans(*inputs, scan=scan)
    expected = selective_scan2d_reference(*inputs)
    torch.testing.assert_close(found, expected, **tol(("reference", "recurrence"), torch.float64))


@pytest.mark.parametrize(("over", "met"), [(2.9, True), (3.1, False)])
def test_the_goal_is_three_times_the_floor(over: float, met: bool) -> None:
    table = Table("one scan", ("stage", *gpu_scan.TIMED))
    table.add("64x64x192", over, 1.0, 0.5, over, 9.0, 1.0)
    table.add("32x32x384", 9.0, 1.0, 0.5, 9.0, 9.0, 1.0)  # another stage, which no goal is about
    (goal,) = gpu_scan.floor_goals(table, "triton")
    assert (goal.measured, goal.met) == (over, met)
