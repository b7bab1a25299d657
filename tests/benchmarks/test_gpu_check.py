"""The GPU check as far as a CPU can run it: its own judgement, and what it does without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import gpu_check
import pytest
import torch


def test_without_a_gpu_it_says_so(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "gpu_check.py", "--output", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 4 and "no CUDA GPU" in done.stderr
    assert not output.exists()


def test_a_right_backend_passes() -> None:
    table, wrong = gpu_check.check(
        "native", list(gpu_check.RAGGED[:4]), [torch.float32], "cpu", repeatable=True
    )
    assert wrong == []
    assert table.markdown().count("torch.float32") == 4 + 1  # the rows, and the limits below them


def test_a_wrong_result_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_check.run

    def spoilt(inputs: list[torch.Tensor], grad_y: torch.Tensor, backend: str) -> list[torch.Tensor]:
        found = right(inputs, grad_y, backend)
        found[4] = found[4] + 1e-2 * torch.randn(found[4].shape)  # the gradient of A
        found[6][0] = float("nan")
        return found

    monkeypatch.setattr(gpu_check, "run", spoilt)
    _, wrong = gpu_check.check("native", [(1, 3, 4, 5, 3, 2)], [torch.float32], "cpu", repeatable=True)
    assert [line.split(": ")[1].split()[0] for line in wrong] == ["A", "delta_bias", "two"]


def test_shapes_are_those_of_the_presets() -> None:
    assert gpu_check.stages("small", 1)[0] == (1, 64, 64, 192, 16, 6)
    assert gpu_check.stages("nano", 2)[3] == (2, 8, 8, 512, 16, 16)


def test_a_gpu_gives_a_file_name() -> None:
    assert gpu_check.slug("NVIDIA A100-SXM4-40GB") == "a100-sxm4-40gb"
    assert gpu_check.slug("NVIDIA GeForce RTX 4090") == "geforce-rtx-4090"


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
