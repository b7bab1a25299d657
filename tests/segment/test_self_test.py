"""The self-test: passes what was verified, on any runtime, and refuses what computes something else."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest

from tests.faults.commanded import CommandedRunner
from vmkla.engines import load_runner
from vmkla.errors import ArtefactMismatchError, VmklaError
from vmkla.runner import Runner
from vmkla.segment.self_test import (
    GRID,
    TOLERANCES,
    check_self_test,
    known_output,
    self_test_frames,
)


@pytest.fixture(scope="module")
def nano() -> Any:
    runner = load_runner("nano", threads=1)
    yield runner
    runner.close()


class Changed:
    """A network whose answers are changed."""

    name = "changed"

    def __init__(self, runner: Runner, change: Any) -> None:
        self._runner, self._change, self.spec = runner, change, runner.spec

    def infer(self, frames_rgb: np.ndarray) -> np.ndarray:
        return np.asarray(self._change(self._runner.infer(frames_rgb).copy()))

    def close(self) -> None:
        """The network is somebody else's."""


@pytest.mark.parametrize(
    ("size", "crc"),
    [((192, 192), 2719470723), ((256, 256), 1272539451), ((96, 160), 2493814996), ((32, 32), 1693695278)],
)
def test_the_picture_is_the_same_everywhere(size: tuple[int, int], crc: int) -> None:
    frames = self_test_frames(*size)
    assert frames.shape == (2, *size, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[0], frames[1][:, ::-1])
    assert zlib.crc32(frames.tobytes()) == crc  # files carry the answer to these very pixels


def test_the_shipped_file_knows_its_answer(nano: Runner) -> None:
    known = nano.spec.metadata.self_test
    assert known is not None and check_self_test(nano) == known
    grids = np.asarray(known["grids"])
    assert grids.shape == (2, 1, GRID, GRID)
    # The network sees the polyp in each picture and nothing where the tunnel is: the answer says something.
    assert grids[0, 0, 4, 5] > 0.9 and grids[1, 0, 4, 2] > 0.9 and grids[:, :, :2].max() < 0.1


def test_the_function_bodies_agree() -> None:
    runner = load_runner("nano", threads=1, kernels="bodies")
    try:
        assert check_self_test(runner) == runner.spec.metadata.self_test
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p * np.float32(0.98), "off by"),
        (lambda p: p * 0, "off by"),
        (lambda p: p[..., ::-1], "off by"),
        (lambda p: np.roll(p, 8, axis=-2), "off by"),
        (lambda p: 1 - p, "off by"),
        (lambda p: p * np.float32(np.nan), "NaN"),
        (lambda p: p + np.float32(0.1), "expected 0 to 1"),
        (lambda p: p[..., :-1], "float32 (1, 1, 256, 255), expected float32 (1, 1, 256, 256)"),
        (lambda p: p.astype(np.float64), "float64"),
    ],
)
def test_something_else_is_refused(nano: Runner, change: Any, words: str) -> None:
    with pytest.raises(VmklaError) as caught:
        check_self_test(Changed(nano, change))
    assert words in caught.value.message


def test_an_output_that_is_stuck_is_refused(nano: Runner) -> None:
    first = nano.infer(self_test_frames(256, 256)[:1])
    with pytest.raises(VmklaError, match="off by"):
        check_self_test(Changed(nano, lambda _: first))


def test_small_differences_pass(nano: Runner) -> None:
    assert check_self_test(Changed(nano, lambda p: p * np.float32(0.995)))
    assert TOLERANCES["fp32"] < TOLERANCES["fp16"] < TOLERANCES["int8"]


@pytest.mark.parametrize(
    ("change", "device", "words"),
    [
        (3e-5, "cpu", ""),
        (2e-4, "cpu", "on average, expected at most 0.00012: its 8-bit products may saturate"),
        (2e-2, "cpu", "off by 0.020, expected at most 0.005"),
        (2e-2, "cuda:0", ""),  # an engine rounds in places of its own
    ],
)
def test_an_int8_files_own_answer_is_compared_closely(
    nano: Runner, change: float, device: str, words: str
) -> None:
    """Against the float32 file's answer, all of these pass."""
    from_float32 = nano.spec.metadata.self_test
    assert from_float32 is not None
    for own in (False, True):
        known = {**from_float32, "precision": "int8" if own else "fp32"}
        changed = Changed(nano, lambda p: p + np.float32(change) * np.sign(0.5 - p))
        metadata = dataclasses.replace(nano.spec.metadata, precision="int8", self_test=known)
        changed.spec = dataclasses.replace(nano.spec, metadata=metadata, device=device)
        if own and words:
            with pytest.raises(VmklaError) as caught:
                check_self_test(changed)
            assert words in caught.value.message
        else:
            assert check_self_test(changed) == known


def test_without_an_answer_the_first_one_is_kept() -> None:
    first = check_self_test(CommandedRunner())
    assert check_self_test(CommandedRunner(), first) == first
    with pytest.raises(VmklaError, match=r"off by 0\.\d+, expected at most 0.01"):
        check_self_test(CommandedRunner(drift=0.1), first)


def test_the_files_word_counts_more() -> None:
    own = known_output(CommandedRunner())
    other = known_output(CommandedRunner(drift=0.3))
    assert check_self_test(CommandedRunner(own), other) == own


@pytest.mark.parametrize("changes", [{"picture": 2}, {"grids": [[0.5]]}])
def test_answers_of_another_kind_are_refused(changes: dict[str, Any]) -> None:
    own = {**known_output(CommandedRunner()), **changes}
    with pytest.raises(ArtefactMismatchError, match="commanded.onnx has"):
        check_self_test(CommandedRunner(own))


def test_batches_and_classes() -> None:
    several = known_output(CommandedRunner(batch=4, classes=3))
    assert np.asarray(several["grids"]).shape == (2, 3, GRID, GRID)
    assert np.asarray(several["grids"])[:, :1].tolist() == known_output(CommandedRunner())["grids"]
