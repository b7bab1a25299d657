"""A bare loop of exponentials on the GPU: what they alone cost, as the yardstick for the scan."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl


@triton.jit
def exponentials(out_ptr, repeats, WIDTH: tl.constexpr):
    """2^-x over and over on WIDTH numbers a program; the minus sign costs nothing."""
    i = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    x = (i % 7).to(tl.float32) * 0.125
    for _ in tl.range(0, repeats):
        x = tl.exp2(-x)
    tl.store(out_ptr + i, x)


def bare_loop(device: torch.device, repeats: int = 2000) -> tuple[int, Callable[[], None]]:
    """How many exponentials a launch computes, and the launch."""
    programs = 64 * torch.cuda.get_device_properties(device).multi_processor_count
    width = 512  # 16 a thread of one warp, as in the scan
    out = torch.empty(programs * width, dtype=torch.float32, device=device)

    def launch() -> None:
        exponentials[(programs,)](out, repeats, WIDTH=width, num_warps=1)

    return programs * width * repeats, launch
