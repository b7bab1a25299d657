"""A picture with a known answer: whether a loaded network still computes what was verified.

The picture is drawn with whole numbers, so it has the same pixels on every machine and at every size. What
the network says of it is kept as a coarse grid: written into the file by export, from the output of the file
it had just verified, and compared when a runner starts. That finds wrong or damaged weights, a broken
kernel or device, and an output that is stuck (there are two pictures with different answers). How good the
network is, it does not say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import ArtefactMismatchError, VmklaError
from vmkla.runner import Runner
from vmkla.segment.steps import check, infer

GRID = 8
"""The answer is the mean probability in each of GRID x GRID cells."""
PICTURE = 1
"""Version of the picture, raised when its pixels change."""
TOLERANCES = {"fp32": 0.01, "fp16": 0.03, "int8": 0.15}
"""Largest difference of a cell by the file's precision; ``int8`` is for engines, and for files that carry the
float32 file's answer. Runtimes and devices differ by less than a third of it; another file, or the other
picture's answer, by 0.3 and more."""
INT8_LARGEST, INT8_MEAN = 0.005, 1.2e-4
"""Largest and mean difference of the cells from an INT8 file's own answer, on a CPU. The integers are exact.
A rounding that falls the other way in other float kernels changes many in the layers behind it: 0.0011 and
5e-5 at most, over ``nano``, ``small`` and ``tiny``, AVX2 and AVX-512, function bodies, and graphs that are
not optimized. Products that saturate give 2.7e-4 on average and more."""
_DIGITS = 5

Floats = npt.NDArray[np.float32]


def self_test_frames(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A lit tunnel with one polyp to the right below, and its mirror image.

    Args:
        height, width: the network's input, px.
    Returns:
        (2, height, width, 3) uint8 RGB.
    """
    # Coordinates in 1/1024 of each side, at the pixels' centres.
    y, x = np.meshgrid(
        (2 * np.arange(height, dtype=np.int64) + 1) * 512 // height,
        (2 * np.arange(width, dtype=np.int64) + 1) * 512 // width,
        indexing="ij",
    )

    def squared(x_centre: int, y_centre: int) -> npt.NDArray[np.int64]:
        return np.asarray((x - x_centre) ** 2 + (y - y_centre) ** 2, np.int64)

    depth = squared(330, 360)  # dark where the tunnel continues
    light = np.minimum(255, 40 + depth * 215 // 620**2 + depth // 9000 % 4 * 5)
    rgb = np.stack([light * 205 // 255 + 20, light * 110 // 255 + 8, light * 90 // 255 + 6], axis=-1)
    radius = 190
    dome = squared(650, 640)
    rim = (dome >= radius**2) & (dome < (radius + 28) ** 2)
    rgb[rim] = rgb[rim] * 55 // 100
    bump = 255 - dome * 130 // radius**2
    polyp = np.stack([bump * 245 // 255, bump * 130 // 255, bump * 112 // 255], axis=-1)
    rgb = np.where((dome < radius**2)[..., None], polyp, rgb)
    rgb[squared(600, 580) < 32**2] = 245  # the lamp's reflection
    rgb[squared(512, 512) >= 540**2] = 4  # outside the round field of view
    frame = rgb.clip(0, 255).astype(np.uint8)
    return np.stack([frame, frame[:, ::-1]])


def known_output(runner: Runner) -> dict[str, Any]:
    """What the network says of the self-test's pictures, as plain values for a file's metadata.

    With them goes the precision that gave the answer.

    Raises:
        VmklaError: its output is not a probability.
    """
    grids = np.round(_answer(runner), _DIGITS).astype(float).tolist()
    return {"picture": PICTURE, "precision": runner.spec.metadata.precision, "grids": grids}


def check_self_test(runner: Runner, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the self-test.

    Args:
        runner: the network, loaded.
        known: what ``known_output`` gave earlier, for a file that does not say so itself; the file's own
            word counts more. Without either, the output must only be probabilities.
    Returns:
        The answer to compare later ones with: the file's own, ``known``, or for want of both what the
        network said now.
    Raises:
        VmklaError: the network says something else of the pictures, or something that is not a probability.
        ArtefactMismatchError: the file's answer is for another picture than this version draws.
    """
    expected = runner.spec.metadata.self_test or known
    if expected is None:
        return known_output(runner)
    if expected.get("picture") != PICTURE:
        raise ArtefactMismatchError(
            f"{runner.spec.path} has the answer to self-test picture {expected.get('picture')!r}, this "
            f"version draws picture {PICTURE}",
            hint="Run: vmkla export again with this version",
        )
    seen = _answer(runner)
    wanted = np.asarray(expected.get("grids", ()), np.float64)
    if wanted.shape != seen.shape:
        raise ArtefactMismatchError(
            f"{runner.spec.path} has self-test answers of shape {wanted.shape}, expected {seen.shape}",
            hint="Run: vmkla export again",
        )
    _compare(np.abs(seen - wanted), expected, runner)
    return expected


def _compare(differences: Floats, expected: dict[str, Any], runner: Runner) -> None:
    """Raise when the cells differ by more than the precision and the device explain."""
    spec = runner.spec
    tolerance, limit = TOLERANCES.get(spec.metadata.precision, max(TOLERANCES.values())), float("inf")
    if expected.get("precision") == "int8" and spec.device == "cpu":
        tolerance, limit = INT8_LARGEST, INT8_MEAN
    largest, mean = float(differences.max()), float(differences.mean())
    if largest <= tolerance and mean <= limit:
        return
    seen, most = f"off by {largest:.3f}", f"{tolerance:g}"
    if largest <= tolerance:
        seen, most = f"off by {mean:.1e} on average", f"{limit:g}: its 8-bit products may saturate"
    raise VmklaError(
        f"the self-test failed: on a picture with a known answer the network is {seen}, "
        f"expected at most {most}",
        hint=f"Check the file and the device: vmkla verify {spec.path}",
    )


def _answer(runner: Runner) -> Floats:
    """(2, classes, GRID, GRID): mean probability in each cell, for both pictures."""
    answers = []
    for frame in self_test_frames(runner.spec.height, runner.spec.width):
        probability = infer(runner, frame[np.newaxis])
        check(probability, runner.spec)
        answers.append(_grid(probability[0]))
    return np.stack(answers)


def _grid(probability: Floats) -> Floats:
    """(classes, h, w) to (classes, GRID, GRID), by means of cells that differ by a pixel at most."""
    rows, columns = (np.arange(GRID) * side // GRID for side in probability.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(probability, rows, axis=1), columns, axis=2)
    ones = np.ones(probability.shape[1:], np.float32)
    counts = np.add.reduceat(np.add.reduceat(ones, rows, axis=0), columns, axis=1)
    return np.asarray(sums / counts, np.float32)
