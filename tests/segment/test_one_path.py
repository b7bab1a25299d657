"""Every command sees the same pixels of a frame, and reads the same findings from the network's output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import vmkla
from tests.export.exported_models import HEIGHT, WIDTH
from vmkla.calibration.reader import read_frames
from vmkla.engines.runners.torch_runner import TorchRunner
from vmkla.engines.verify.frame import VerifyFrame, answer, judge_frame
from vmkla.engines.verify.gate_frames import load_gate_frames
from vmkla.evaluation.judge import judge
from vmkla.explain import BlockName, Panel
from vmkla.segment.findings import Findings
from vmkla.segment.self_test import check_self_test, known_output, self_test_frames
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment
from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.network.lesions import TRACKER_BYTES, KeptTracker, WorkerLesions
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.network.worker import _Finder
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.media.images import read_image, write_png

Image = npt.NDArray[np.uint8]
Seen = tuple[list[Image], Image | None]  # what the network saw, and the mask that came of it


class Recorder:
    """A network that keeps the frames that it is given."""

    def __init__(self, weights: Path) -> None:
        self._runner = TorchRunner.from_file(weights, threads=1)
        self.name, self.spec = self._runner.name, self._runner.spec
        self.frames: list[Image] = []

    def infer(self, frames_rgb: Image) -> npt.NDArray[np.float32]:
        self.frames += [frame.copy() for frame in frames_rgb]
        return self._runner.infer(frames_rgb)

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose field of view is found in the frame."""
    from tests.export.exported_models import network
    from vmkla.models.checkpoints import save_weights

    path = tmp_path_factory.mktemp("weights") / "auto.safetensors"
    save_weights(network(), path, training={"image_size_hw": [HEIGHT, WIDTH], "roi": "auto"})
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame with a black border, as a file."""
    rgb = np.zeros((3 * HEIGHT, 3 * WIDTH, 3), np.uint8)
    rng = np.random.default_rng(4)
    rgb[20:-10, 30:-40] = rng.integers(90, 220, (3 * HEIGHT - 30, 3 * WIDTH - 70, 3))
    path = tmp_path_factory.mktemp("frame") / "frame.png"
    write_png(path, rgb)
    return path


def by_segmenter(runner: Recorder, image: Path, _: Path) -> Image | None:
    return vmkla.Segmenter(runner)(read_image(image)).mask


def by_segmenter_file(runner: Recorder, image: Path, _: Path) -> Image | None:
    (frame,) = vmkla.Segmenter(runner).video(image)
    return frame.findings.mask


def by_file_mode(runner: Recorder, image: Path, folder: Path) -> Image | None:
    segment(runner, image, SegmentOptions(out_dir=folder, save_masks=True))
    return read_image(folder / "masks" / "frame.png")[..., 0] // 255


def by_live_worker(runner: Recorder, image: Path, _: Path) -> Image | None:
    pulse = SimpleNamespace(update=lambda **_: None)
    with contextlib.closing(Board(TRACKER_BYTES)) as board:
        lesions = WorkerLesions(KeptTracker(), board)
        finder = _Finder(runner, WorkerOptions(), pulse, lesions)  # type: ignore[arg-type]
        return finder.result(LiveFrame(1, 0.0, read_image(image))).findings.mask


def sample_of(image: Path) -> Any:
    rgb = read_image(image)
    return SimpleNamespace(
        name="frame", image_rgb=rgb, mask=np.zeros(rgb.shape[:2], np.uint8), group="", prepared=None
    )


def by_evaluation(runner: Recorder, image: Path, _: Path) -> Image | None:
    return judge(runner, sample_of(image), runner.spec.operating_point)[1]


def by_verify(runner: Recorder, image: Path, _: Path) -> Image | None:
    frame = VerifyFrame("frame", read_image(image))
    said = runner.spec, answer(runner, frame)
    return judge_frame(frame, said, said)[1].candidate


def by_calibration(runner: Recorder, image: Path, _: Path) -> Image | None:
    read = read_frames([str(image)], runner.spec.metadata.preprocess, count=1, check_count=0, allow_few=True)
    runner.infer(read.frames)
    return None


def by_export_check(runner: Recorder, image: Path, _: Path) -> Image | None:
    runner.infer(load_gate_frames(str(image), runner.spec.metadata.preprocess))
    return None


def by_training(runner: Recorder, image: Path, _: Path) -> Image | None:
    from vmkla.data.arrays import prepared_pair

    runner.infer(prepared_pair(sample_of(image), runner.spec.metadata.preprocess)[0][None])
    return None


PATHS: tuple[Callable[[Recorder, Path, Path], Image | None], ...] = (
    by_segmenter_file,
    by_file_mode,
    by_live_worker,
    by_evaluation,
    by_verify,
    by_calibration,
    by_export_check,
    by_training,
)


@pytest.fixture(scope="module")
def expected(weights: Path, image: Path) -> tuple[list[Image], Image | None]:
    runner = Recorder(weights)
    mask = by_segmenter(runner, image, image)
    assert mask is not None and 0.02 < mask.mean() < 0.98 and not mask[:20].any()
    return runner.frames, mask


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_same_pixels_and_findings(
    path: Callable[[Recorder, Path, Path], Image | None],
    expected: Seen,
    weights: Path,
    image: Path,
    tmp_path: Path,
) -> None:
    runner = Recorder(weights)
    mask = path(runner, image, tmp_path / "out")
    assert len(runner.frames) == len(expected[0]) == 1
    np.testing.assert_array_equal(runner.frames[0], expected[0][0])
    if mask is not None:
        np.testing.assert_array_equal(mask, expected[1])


def test_explain_sees_the_same(expected: Seen, weights: Path, image: Path) -> None:
    """Its own pass adds up in another order, so a pixel on an edge may fall either way."""
    panel = Panel(weights, BlockName(3))
    given: list[Image] = []
    normalised = panel._served.normalised
    panel._served.normalised = lambda frames: given.append(frames.numpy().copy()) or normalised(frames)
    findings: Findings = panel(read_image(image)).findings
    np.testing.assert_array_equal(given[0][0], expected[0][0])
    assert np.mean(findings.mask != expected[1]) < 1e-3


def test_the_self_test_takes_the_same_steps(weights: Path) -> None:
    runner = Recorder(weights)
    check_self_test(runner, known_output(runner))
    np.testing.assert_array_equal(runner.frames[:2], self_test_frames(HEIGHT, WIDTH))
    np.testing.assert_array_equal(runner.frames[2:], self_test_frames(HEIGHT, WIDTH))
