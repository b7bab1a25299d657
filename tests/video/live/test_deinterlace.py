"""network.deinterlace: the network sees one field of woven frames, and the screen the whole frame."""

from __future__ import annotations

import json
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.faults.commanded import CommandedRunner
from tests.video.media.woven_clips import woven_frames, write_flagged
from vmkla.errors import UsageError
from vmkla.video.cancellation import Cancellation
from vmkla.video.live.network.deinterlace import LiveDeinterlacer, looks_interlaced, upper_field
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.run import run_live
from vmkla.video.media.address import parse_address
from vmkla.video.media.decoding import VideoSource

Image = npt.NDArray[np.uint8]
Clip = tuple[list[Image], list[Image], list[Image]]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return woven_frames(6, height=240, width=320)


class TestLook:
    def test_woven_frames_look_so_and_whole_ones_do_not(self, clip: Clip) -> None:
        woven, whole, _ = clip
        assert [looks_interlaced(rgb) for rgb in woven] == [True] * 6
        assert [looks_interlaced(rgb) for rgb in whole] == [False] * 6
        assert [looks_interlaced(upper_field(rgb)) for rgb in woven] == [False] * 6

    @pytest.mark.parametrize("sigma", [5, 10, 20, 40])
    def test_noise_does_not(self, clip: Clip, sigma: int) -> None:
        noise = np.random.default_rng(0).normal(0, sigma, clip[1][0].shape)
        assert not looks_interlaced(np.clip(clip[1][0] + noise, 0, 255).astype(np.uint8))

    def test_text_and_fine_patterns_do_not(self) -> None:
        """Lettering has edges of all directions; a checkerboard zigzags down and across alike."""
        text = np.zeros((240, 320, 3), np.uint8)
        for line in range(12):
            cv2.putText(text, "NAME 1970-01-01 DR. X", (4, 20 * line + 15), 0, 0.5, (255, 255, 255), 1)
        board = np.indices((240, 320)).sum(0) % 2 * 255
        assert not looks_interlaced(text)
        assert not looks_interlaced(np.repeat(board[..., None], 3, 2).astype(np.uint8))

    @pytest.mark.parametrize("size_hw", [(1, 1), (2, 2), (9, 300), (300, 9), (10, 10), (11, 13)])
    def test_any_size(self, size_hw: tuple[int, int]) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
        assert looks_interlaced(np.zeros_like(rgb)) is False
        whole = upper_field(rgb)
        assert whole.shape == rgb.shape
        np.testing.assert_array_equal(whole[0::2], rgb[0::2])
        for line in range(1, size_hw[0], 2):
            above, below = rgb[line - 1].astype(float), rgb[min(line + 1, (size_hw[0] - 1) // 2 * 2)]
            assert np.abs(whole[line] - (above + below) / 2).max() <= 0.5

    @pytest.mark.needs_data
    def test_real_recordings(self, shared_data: Path) -> None:
        def share(name: str) -> float:
            frames = VideoSource(shared_data / "video" / name, deinterlace="no").frames()
            return float(
                np.mean([looks_interlaced(frame.rgb) for frame, _ in zip(frames, range(300), strict=False)])
            )

        assert share("polyp_seq1.mp4") > 0.4 and share("colonoscopy.mp4") == 0


class TestLiveDeinterlacer:
    def test_two_looks_begin_it_and_ten_seconds_end_it(self, clip: Clip) -> None:
        woven, whole, _ = clip
        frames = LiveDeinterlacer()
        assert frames.of(woven[0], 0.0) is woven[0]
        assert frames.of(woven[1], 0.05) is woven[1]  # too soon for a second look
        np.testing.assert_array_equal(frames.of(woven[1], 0.1), upper_field(woven[1]))
        assert frames.active
        for second in range(1, 10):
            assert frames.of(whole[0], 0.1 + second) is not whole[0]
        assert frames.of(whole[0], 10.2) is whole[0] and not frames.active

    def test_one_strange_frame_does_not(self, clip: Clip) -> None:
        woven, whole, _ = clip
        frames = LiveDeinterlacer()
        for index, rgb in enumerate([woven[0], whole[0], woven[1], whole[1]]):
            assert frames.of(rgb, 0.2 * index) is rgb

    @pytest.mark.parametrize("wanted", ["yes", "no"])
    def test_what_is_asked_for_is_done(self, clip: Clip, wanted: Any) -> None:
        frames = LiveDeinterlacer(wanted)
        seen = [frames.of(rgb, 0.2 * index) is rgb for index, rgb in enumerate(clip[0])]
        assert seen == [wanted == "no"] * 6

    def test_another_word_is_refused(self, tmp_path: Path) -> None:
        word: Any = "perhaps"
        with pytest.raises(UsageError, match="perhaps"):
            WorkerOptions(deinterlace=word)


def moving_box(frame: int) -> tuple[int, int, int, int]:
    """x, y, width and height in the upper field of a frame; the lower one shows it eight pixels on."""
    return 20 + 16 * (frame % 8), 40, 40, 33


def boxes_in_fields(count: int) -> list[Image]:
    noise = np.random.default_rng(0).integers(0, 90, (96, 192, 3)).astype(np.uint8)
    texture = np.asarray(cv2.blur(noise, (9, 9)), np.uint8)
    frames = []
    for index in range(count):
        x, y, w, h = moving_box(index)
        fields = [texture.copy(), texture.copy()]
        for late, field in enumerate(fields):
            field[y : y + h, x + 8 * late : x + 8 * late + w] = (230, 30, 30)
        fields[0][1::2] = fields[1][1::2]
        frames.append(fields[0])
    return frames


def test_the_screen_shows_every_byte_and_the_network_one_field(tmp_path: Path) -> None:
    """Through the whole of live mode: a woven file in a loop."""
    path = write_flagged(tmp_path / "a.mkv", boxes_in_fields(24), codec="ffv1", pix_fmt="bgr0")
    sources = {zlib.crc32(frame.rgb) for frame in VideoSource(path, deinterlace="no").frames()}
    out, cancel = tmp_path / "out", Cancellation()
    watcher = threading.Thread(target=_stop_after, args=(out, '"kind": "fields"', cancel))
    watcher.start()
    report = run_live(CommandedRunner, parse_address(str(path)), LiveOptions(out, loop=True), cancel)
    watcher.join()
    assert report.worker["deinterlaced"] > 0 and report.events["fields"] == 1
    assert any("one field" in warning for warning in report.warnings)
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    shown = [row for row in rows if row["sequence"] and not row["again"]]
    assert len(shown) > 5
    assert {row["crc32_source"] for row in shown} <= sources
    assert all(row["crc32_outside"] == row["crc32_source_outside"] for row in shown)


def _stop_after(out: Path, text: str, cancel: Cancellation) -> None:
    until = time.monotonic() + 40
    events = out / "events.jsonl"
    while time.monotonic() < until and not (events.exists() and text in events.read_text()):
        time.sleep(0.02)
    time.sleep(0.3)  # some frames more
    cancel.stop()


@pytest.mark.parametrize("frame", range(3))
def test_markers_stay_where_the_finding_is_in_the_frame(frame: int) -> None:
    """Interpolated lines move nothing: the box is that of the upper field, in pixels of the whole frame."""
    from vmkla.segment.findings import find
    from vmkla.segment.operating_point import OperatingPoint
    from vmkla.segment.preprocess import PreprocessSpec, Rect, prepare

    rgb = boxes_in_fields(3)[frame]
    spec, whole = PreprocessSpec(96, 192), Rect(0, 0, 192, 96)

    def box(image: Image) -> tuple[int, ...]:
        red = prepare(image, spec, whole)[..., 0].astype(np.float32)[None] / 255
        (found,) = find(red, whole, (96, 192), OperatingPoint(0.5)).regions
        return tuple(found.box)

    x, y, w, h = moving_box(frame)
    assert box(rgb) == (x, y, w + 8, h)  # both fields: eight pixels too wide
    # The lines above and below are the mean of red and dark, which is just over the threshold.
    assert box(upper_field(rgb)) == (x, y - 1, w, h + 2)
