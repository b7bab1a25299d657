"""Lower bounds of the scan's time, and the counts that were made before anything ran on a GPU.

A time is compared with the largest of three floors: the exponentials that any scan computes, the bytes it
moves, and the issue slots of these kernels' own instructions. A multiprocessor computes 16 exponentials and
issues 4 warp instructions a clock, so the measured rate of exponentials gives the other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXPONENTIALS, BYTES = "exponentials_per_ms", "bytes_per_ms"
LAST_PASS, FIRST_PASS = 211, 167
"""Warp instructions that a visit of 32 channels takes, counted in the sm_90 code for 16 states, 6 ranks."""
COUNTED = (16, 6)
"""States and ranks that they were counted for: those of `small`'s first stage."""


STEP = "`{}`, a training step of 32 images of 256x256"
ESTIMATES = (
    ("cuda.float.1.us", "CUDA scan, `small`'s first stage, batch 1, float32, us", "50 to 65", "times"),
    ("cuda.float.1.exponentials", "the same, over its exponentials", "3.7 to 4.7", "times"),
    ("cuda.float.1.over", "the same, over the largest of its floors; goal: at most 3", "-", "times"),
    ("cuda.float.8.over", "the same, batch 8; goal: at most 3", "-", "times"),
    ("cuda.last_pass.slots", "CUDA scan, last pass, warp instructions a visit", str(LAST_PASS), "ncu"),
    ("cuda.first_pass.slots", "CUDA scan, first pass, the same", str(FIRST_PASS), "ncu"),
    (
        "triton.1.exponentials",
        "Triton scan, the same stage, forward, batch 1, over its exponentials",
        "4 to 6",
        "scan",
    ),
    ("triton.8.exponentials", "the same, batch 8", "4 to 6", "scan"),
    *(
        (f"{name}.{key}", f"{STEP.format(name)}, {what}", text, "training")
        for name, figures in (
            ("nano", ("542", "12", "39", "8", "2700", "1080 to 1360")),
            ("small", ("177", "52", "98", "31", "4700", "-")),
        )
        for (key, what), text in zip(
            (
                ("eager.images_per_s", "eager KAN bases: images a second"),
                ("eager.scan_ms", "eager: the scan, ms"),
                ("eager.kan_ms", "eager: the KAN bases, ms"),
                ("eager.rest_ms", "eager: the rest, ms"),
                ("eager.launches", "eager: kernel launches"),
                ("fused.images_per_s", "fused KAN bases: images a second"),
            ),
            figures,
            strict=True,
        )
    ),
)
"""Key of the figure to compare with, what it is, what was counted, and the step that measures it."""


def floors_ms(
    shape: tuple[int, ...], bytes_moved: int, figures: Mapping[str, float], instructions: float | None
) -> dict[str, float]:
    """Compute the lower bounds of one scan's time, in ms, by name.

    Args:
        shape: b, H, W, d, n, R.
        bytes_moved: each input read once, y written once.
        figures: with the measured rates; without them there are no floors.
        instructions: warp instructions of its kernels, where they are known.
    """
    if EXPONENTIALS not in figures or BYTES not in figures:
        return {}
    b, H, W, d, n, _ = shape
    rate = figures[EXPONENTIALS]
    found = {"exponentials": 4 * b * H * W * d * n / rate, "bytes": bytes_moved / figures[BYTES]}
    if instructions is not None:
        found["issue slots"] = instructions / (rate / 4)
    return found


def cuda_instructions(shape: tuple[int, ...], plan: tuple[int, ...]) -> float | None:
    """Estimate the warp instructions of the CUDA scan; None for sizes without a count."""
    b, H, W, d, n, R = shape
    _, lanes, chunks = plan
    if (n, R) != COUNTED or lanes != 1:
        return None
    return visits(b, H * W, d) * (LAST_PASS + (FIRST_PASS if chunks > 1 else 0))


def visits(b: int, L: int, d: int) -> float:
    """Count the visits of a warp (32 channels at one pixel) over the four routes."""
    return 4 * b * L * -(-d // 32)


def floor_cells(ms: float, floors: Mapping[str, float]) -> dict[str, Any]:
    """Make the cells of a row of times: the lower bounds, and the time divided by the largest of them."""
    named = {f"{name}, ms": round(floors[name], 5) if name in floors else "-" for name in
             ("exponentials", "issue slots", "bytes")}  # fmt: skip
    return {
        "ms": round(ms, 5),
        **named,
        "over the largest": round(ms / max(floors.values()), 2) if floors else "-",
    }
