"""The tolerances of every test: how far two computations of the same value may differ.

Each row names the pair and the type, and says where the figure comes from and which wrong result it
would still catch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    """|a - b| <= atol + rtol |b|, element by element, and why."""

    atol: float
    rtol: float
    why: str


TOLERANCES: dict[tuple[tuple[str, str], torch.dtype], Tolerance] = {
    # The ops.
    (("reference", "recurrence"), torch.float64): Tolerance(
        1e-11, 1e-11, "same sums in another order; a route in the wrong order differs by 1e-1"
    ),
    (("native", "reference"), torch.float32): Tolerance(
        2e-5,
        2e-5,
        "float32 sums over at most 100 terms of order 1, exp to 1e-7, against float64; a missing term or "
        "a state carried over a row's end differs by 1e-2",
    ),
    (("native gradient", "reference gradient"), torch.float32): Tolerance(
        2e-5, 2e-5, "times the largest gradient of the tensor; a forgotten term is of order 1e-1"
    ),
    (("triton", "reference"), torch.float32): Tolerance(
        2e-5,
        2e-5,
        "as the native kernels, times the largest element of y; a carry of the wrong chunk differs by 1e-1",
    ),
    (("triton gradient", "reference gradient"), torch.float32): Tolerance(
        2e-5, 2e-5, "times the largest gradient of the tensor; a forgotten term is of order 1e-1"
    ),
    (("triton", "reference"), torch.float16): Tolerance(
        1e-3, 1e-3, "float32 inside, one rounding of the result to half; float16 state differs by 1e-2"
    ),
    (("triton gradient", "reference gradient"), torch.float16): Tolerance(
        1e-3, 1e-3, "one rounding to half; a forgotten term is of order 1e-1"
    ),
    (("triton", "reference"), torch.bfloat16): Tolerance(
        8e-3,
        8e-3,
        "one rounding to 8 bits, or a cut, as the interpreter does; bfloat16 state differs by 1e-1",
    ),
    (("triton gradient", "reference gradient"), torch.bfloat16): Tolerance(
        8e-3, 8e-3, "one rounding to 8 bits; a forgotten term is of order 1e-1"
    ),
    (("cuda", "recurrence"), torch.float32): Tolerance(
        1e-5,
        0.0,
        "times the largest element of y: exponentials good to 2^-22, float32 sums over hundreds of steps; a "
        "route or a carry in the wrong place differs by 1e-1",
    ),
    (("cuda", "recurrence"), torch.float16): Tolerance(
        6e-4,
        0.0,
        "times the largest element of y: one rounding to half, 2^-11; a state in half differs by 1e-2",
    ),
    (("cuda basis", "recurrence"), torch.float32): Tolerance(
        3e-6, 0.0, "cubes of numbers up to 2 in float32, cancelling; a neighbouring basis differs by 1e-1"
    ),
    (("cuda basis", "recurrence"), torch.float16): Tolerance(
        5e-4, 0.0, "one rounding to half of numbers up to 1, 2^-11; a neighbouring basis differs by 1e-1"
    ),
    (("mamba_ssm", "reference"), torch.float32): Tolerance(
        2e-5, 2e-5, "float32 sums against float64; a channel in the wrong group differs by 1e-1"
    ),
    (("native basis", "reference basis"), torch.float32): Tolerance(
        3e-6, 3e-6, "cubes of numbers up to 2 in float32, cancelling; a neighbouring basis differs by 1e-1"
    ),
    (("native basis gradient", "reference basis gradient"), torch.float32): Tolerance(
        2e-4,
        1e-4,
        "slopes of up to 50 (narrow cells) in float32; a forgotten chain factor is off by 2 or more",
    ),
    (("triton basis", "reference basis"), torch.float32): Tolerance(
        3e-6, 0.0, "as the native kernels; a neighbouring basis differs by 1e-1"
    ),
    (("triton basis", "reference basis"), torch.float16): Tolerance(
        5e-4, 0.0, "one rounding to half of numbers up to 1, 2^-11; a position in half is off by 2e-3"
    ),
    (("triton basis", "reference basis"), torch.bfloat16): Tolerance(
        4e-3, 0.0, "one rounding to 8 bits, or a cut, as the interpreter does; a neighbouring basis, 1e-1"
    ),
    (("triton basis gradient", "reference basis gradient"), torch.float32): Tolerance(
        2e-4, 1e-4, "as the native kernels; a forgotten chain factor is off by 2 or more"
    ),
    (("triton basis gradient", "reference basis gradient"), torch.float16): Tolerance(
        1e-3, 1e-3, "one rounding to half; a forgotten term is of order 1e-1"
    ),
    (("triton basis gradient", "reference basis gradient"), torch.bfloat16): Tolerance(
        8e-3, 8e-3, "one rounding to 8 bits, or a cut; a forgotten term is of order 1e-1"
    ),
    (("native", "reference"), torch.float16): Tolerance(
        2e-3, 2e-3, "the result is rounded to half (2^-11); float16 state would be off by 1e-1"
    ),
    (("ort kernel", "reference"), torch.float32): Tolerance(
        2e-5, 2e-5, "the native kernel in another host; an input in the wrong slot differs by 1e-1"
    ),
    (("ort kernel", "reference"), torch.float16): Tolerance(
        2e-3, 2e-3, "the result is rounded to half (2^-11); reading half as float gives noise"
    ),
    (("ort kernel", "basis reference"), torch.float32): Tolerance(
        2e-6, 1e-5, "uniform knots have a formula of their own; the neighbouring basis is off by 1e-2"
    ),
    (("ort kernel", "basis reference"), torch.float16): Tolerance(
        2e-6, 1.1e-3, "a rounding to half may fall 2^-10 away; the neighbouring basis is off by 1e-2"
    ),
    # The network's modules against independent formulations.
    (("module", "definition"), torch.float64): Tolerance(
        1e-9, 1e-9, "same arithmetic in another order; a transposed axis differs by 1e-1"
    ),
    (("module", "definition"), torch.float32): Tolerance(
        1e-5, 1e-5, "float32 sums of some tens of terms; a transposed axis differs by 1e-1"
    ),
    (("attention", "quadratic"), torch.float64): Tolerance(
        1e-6, 1e-6, "rotary tables are float32, good to 1e-7; a head mixed with another differs by 1e-1"
    ),
    (("rope", "complex"), torch.float32): Tolerance(
        1e-5,
        1e-5,
        "float32 cosines of angles up to some tens of radians; rotating the wrong way differs by 1",
    ),
    (("kan", "definition"), torch.float64): Tolerance(
        1e-5,
        1e-5,
        "knots are float32, slopes up to 10 carry their 1e-7; the published precedence error, 1e-1",
    ),
    (("kan", "layout"), torch.float32): Tolerance(
        1e-5, 1e-5, "same products in another layout; bases of the wrong feature differ by 1e-1"
    ),
    (("encoder", "vmamba"), torch.float32): Tolerance(
        1e-4, 1e-4, "a whole block in float32, scans in another order; a wrong row of x_proj differs by 1e-1"
    ),
    (("batch", "single"), torch.float32): Tolerance(
        1e-5,
        1e-5,
        "products of another size are summed in another order; leaking between images differs by 1e-1",
    ),
    (("eager", "exported"), torch.float32): Tolerance(
        1e-5, 1e-5, "the same ops after tracing; a frozen size or a lost branch differs by 1e-1"
    ),
    (("float32", "half"), torch.float16): Tolerance(
        3e-2, 3e-2, "half keeps 11 bits through a module of several products; an overflow is inf or nan"
    ),
    (("weights", "half storage"), torch.float16): Tolerance(
        1e-7, 2**-11, "one rounding to half; a swapped tensor differs by 1e-1"
    ),
    (("grad-cam", "definition"), torch.float32): Tolerance(
        1e-6, 1e-4, "the same sums in another order; weights of the wrong axis differ by 1e-1 of the map"
    ),
    # Export and engines.
    (("ort body", "reference"), torch.float32): Tolerance(
        1e-5,
        2e-5,
        "chunked instead of pixel by pixel, same sums; a lost carry between chunks differs by 1e-1",
    ),
    (("ort body", "reference"), torch.float16): Tolerance(
        2e-3, 2e-3, "inputs are the same halves, the result is rounded to half; float16 state differs by 1e-1"
    ),
    (("ort body", "small delta"), torch.float32): Tolerance(
        1e-11, 1e-5, "delta of 1e-6 makes y of 1e-6; log(1 + e) without care is off by several per cent of it"
    ),
    (("ort body", "basis reference"), torch.float32): Tolerance(
        2e-6,
        1e-5,
        "the uniform path is another formula than Cox-de Boor; the neighbouring basis differs by 1e-2",
    ),
    (("ort body", "basis reference"), torch.float16): Tolerance(
        2e-6,
        1.1e-3,
        "one rounding to half may fall to the neighbour, 2^-10 away; the neighbouring basis, 1e-2",
    ),
    (("rewrite", "module"), torch.float32): Tolerance(
        1e-5,
        1e-5,
        "weights multiplied in float64, then the same sums; a swapped colour or pixel differs by 1e-1",
    ),
    (("uint8 frames", "float frames"), torch.float32): Tolerance(
        1e-5,
        0.0,
        "probabilities; one product over 48 pixels in another order; swapped colours differ by 1e-1",
    ),
    (("fp16 file", "torch"), torch.float16): Tolerance(
        2e-2,
        0.0,
        "probabilities of the tiny network, each tensor rounded to 11 bits, measured 7e-3; a route read "
        "backwards differs by 1e-1",
    ),
    (("fp16 batch", "fp16 single"), torch.float16): Tolerance(
        2e-3, 0.0, "probabilities; products of another size round to other halves; a mixed-up batch, 1e-1"
    ),
    (("float32 scan", "half scan"), torch.float16): Tolerance(
        1e-2, 1e-2, "inputs of the scan are the same halves, the result of the norm is of order 1"
    ),
    # Training.
    (("compiled", "eager"), torch.float32): Tolerance(
        1e-4,
        1e-4,
        "two AdamW steps of 1e-3, sums fused in another order; a wrong gradient moves weights by 1e-3",
    ),
    (("two processes", "one"), torch.float32): Tolerance(
        2e-5,
        2e-5,
        "four AdamW steps; gradients summed in another order moved a weight by 3e-6 at most, and gradients "
        "that are not shared move it by the rate of a step, 1e-3",
    ),
    (("onnx", "torch"), torch.float32): Tolerance(
        2e-5,
        0.0,
        "probabilities, float32 sums in another order: each within 1e-5 of float64, 30 batches, AVX2 and "
        "AVX-512; a route read backwards differs by 1e-3",
    ),
    (("layer norm gradient", "sum"), torch.float32): Tolerance(
        0.5, 1e-4, "float32 sums of 40 000 terms of about 1; the same in bfloat16 are off by 5e4"
    ),
    # The data: mean absolute difference of two pictures, in levels of 0 to 255.
    (("packed jpeg", "folder"), torch.uint8): Tolerance(
        2.0, 0.0, "smoothed 5x5, JPEG 95 of noise is 1 off; red for blue is 60 off, a shift by a pixel 3"
    ),
    (("Pillow", "OpenCV"), torch.uint8): Tolerance(
        3.0, 0.0, "other rounding, other Gaussian, borders half a pixel apart; a shift by a pixel is 6 off"
    ),
    # The metrics.
    (("monai", "all pairs"), torch.float32): Tolerance(
        1e-5, 1e-6, "distances of a few voxels kept in float32; the next longer distance differs by 1e-1"
    ),
}


def tol(pair: tuple[str, str], dtype: torch.dtype) -> dict[str, float]:
    """``atol`` and ``rtol`` for ``torch.testing.assert_close``."""
    row = TOLERANCES[pair, dtype]
    return {"atol": row.atol, "rtol": row.rtol}
