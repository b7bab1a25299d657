"""vmkla.video.media.sources: what a user's word for a source means."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.video.media.small_images import stating, write_irregular
from vmkla.errors import BadInputError, UsageError
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.options import ReadOptions
from vmkla.video.media.sources import ImageSource, open_source


def put_image(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(path.suffix, np.full((12, 16, 3), value, np.uint8))[1]
    path.write_bytes(data.tobytes())
    return path


def names(source: object) -> list[str]:
    assert isinstance(source, ImageSource)
    return [item.name for item in source.items]


class TestKinds:
    def test_video(self, write_clip: Callable[..., Path], make_frames: Callable[..., list[object]]) -> None:
        assert isinstance(open_source(write_clip("a.mp4", make_frames(3, 48, 64))), VideoSource)

    def test_content_decides_not_the_suffix(
        self, tmp_path: Path, write_clip: Callable[..., Path], make_frames: Callable[..., list[object]]
    ) -> None:
        disguised_image = put_image(tmp_path / "a.png").rename(tmp_path / "a.mp4")
        assert names(open_source(disguised_image)) == ["a.mp4"]
        disguised_video = write_clip("b.mp4", make_frames(3, 48, 64)).rename(tmp_path / "b.dat")
        assert open_source(str(disguised_video)).kind == "video"

    def test_motion_jpeg_is_a_video(
        self, write_clip: Callable[..., Path], make_frames: Callable[..., list[object]]
    ) -> None:
        path = write_clip("a.mjpeg", make_frames(4, 48, 64), codec="mjpeg", pix_fmt="yuvj420p")
        source = open_source(path)
        assert source.kind == "video" and len(list(source.frames())) == 4

    def test_text_named_png_is_a_broken_image(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text("not a picture")
        with pytest.raises(BadInputError, match=r"a\.png cannot be decoded"):
            list(open_source(path).frames())

    @pytest.mark.parametrize(
        "address",
        [
            "rtsp://me:secret@10.0.0.5/live",
            "v4l2:///dev/video0",
            "/dev/video0",
            "gst:src ! appsink",
            "sample://",
        ],
    )
    def test_live_sources_need_live_mode(self, address: str) -> None:
        with pytest.raises(UsageError, match="without --live") as caught:
            open_source(address)
        assert "--live" in str(caught.value.hint) and "secret" not in str(caught.value)

    def test_a_named_pipe_needs_live_mode(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "camera")
        with pytest.raises(UsageError, match="without --live"):
            open_source(tmp_path / "camera")

    @pytest.mark.parametrize("address", ["http://host/a.mp4", "s3://bucket/a.mp4"])
    def test_other_addresses(self, address: str) -> None:
        with pytest.raises(UsageError, match="only local files"):
            open_source(address)

    def test_device(self) -> None:
        with pytest.raises(UsageError, match="device"):
            open_source("/dev/null")

    @pytest.mark.parametrize("spec", ["gone.mp4", "gone/", "gone/a.png", "zero\0byte"])
    def test_missing(self, tmp_path: Path, spec: str) -> None:
        with pytest.raises(BadInputError, match="gone|zero"):
            open_source(f"{tmp_path}/{spec}")


class TestFolder:
    def test_recursive_natural_order_hidden_left_out(self, tmp_path: Path) -> None:
        wanted = ["frame2.png", "frame10.png", "Frame11.JPG", "sub 1/ü 3.bmp", "sub 1/視 20.png"]
        for name in [*wanted, ".hidden.png", ".cache/a.png", "sub 1/._ü 3.png"]:
            put_image(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no picture")
        assert names(open_source(tmp_path)) == wanted

    def test_frames_carry_name_index_and_hash(self, tmp_path: Path) -> None:
        for value in range(3):
            put_image(tmp_path / f"{value}.png", value)
        frames = list(open_source(tmp_path).frames())
        assert [(frame.index, frame.name) for frame in frames] == [(0, "0.png"), (1, "1.png"), (2, "2.png")]
        assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [0, 1, 2]
        assert len({frame.sha256 for frame in frames}) == 3 and frames[0].pts is None

    def test_excluded_folders_are_not_searched(self, tmp_path: Path) -> None:
        put_image(tmp_path / "a.png")
        put_image(tmp_path / "run" / "overlay" / "a.png")
        source = open_source(tmp_path, exclude=[tmp_path / "run" / "overlay"])
        assert names(source) == ["a.png"]

    def test_without_images(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no picture")
        with pytest.raises(BadInputError, match="holds no image") as caught:
            open_source(tmp_path)
        assert caught.value.hint is not None and "--video" in caught.value.hint

    def test_one_unreadable_image_is_listed(self, tmp_path: Path) -> None:
        put_image(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(put_image(tmp_path / "c.png").read_bytes()[:40])
        source = open_source(tmp_path)
        assert [frame.name for frame in source.frames()] == ["a.png", "c.png"]
        assert [problem.where for problem in source.problems] == ["b.png"]
        assert source.total == 3

    def test_nothing_readable(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.jpg"):
            (tmp_path / name).write_text("text")
        with pytest.raises(BadInputError, match="none of the 2 images"):
            list(open_source(tmp_path).frames())

    def test_skipped_images_are_not_decoded(self, tmp_path: Path) -> None:
        put_image(tmp_path / "a.png")
        put_image(tmp_path / "b.png")
        source = open_source(tmp_path)
        assert isinstance(source, ImageSource)
        frames = source.frames(lambda index, item, sha256: index == 0 and len(sha256) == 64)
        assert [frame.name for frame in frames] == ["b.png"]

    def test_what_is_not_a_regular_file_is_listed_and_never_read(self, tmp_path: Path) -> None:
        """A named pipe would hang the reader, /dev/zero fill the memory, a link to itself stop the run."""
        put_image(tmp_path / "a.png")
        (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
        wanted = write_irregular(tmp_path)
        source = open_source(tmp_path)
        assert names(source) == ["a.png", "link.png"]
        assert [frame.name for frame in source.frames()] == ["a.png", "link.png"]
        assert [problem.where for problem in source.problems] == wanted
        reasons = {problem.where: problem.what for problem in source.problems}
        assert reasons["pipe.png"] == "not read: a named pipe, expected a regular file"
        assert "a link to a device" in reasons["zero.png"]
        assert "leads nowhere: Too many levels" in reasons["itself.png"]
        assert "leads nowhere: No such file" in reasons["nowhere.png"]
        found = open_source(f"{tmp_path}/*.png")
        assert names(found) == ["a.png", "link.png"]
        assert [problem.where for problem in found.problems] == wanted

    def test_nothing_regular(self, tmp_path: Path) -> None:
        write_irregular(tmp_path)
        for spec in (tmp_path, f"{tmp_path}/*.png"):
            with pytest.raises(BadInputError, match="none of them a regular file"):
                open_source(spec)

    def test_a_named_pipe_that_takes_the_place_of_an_image_does_not_hang(self, tmp_path: Path) -> None:
        put_image(tmp_path / "a.png")
        put_image(tmp_path / "b.png")
        source = open_source(tmp_path)
        (tmp_path / "b.png").unlink()
        os.mkfifo(tmp_path / "b.png")
        assert [frame.name for frame in source.frames()] == ["a.png"]
        assert "a named pipe" in source.problems[0].what

    def test_images_beyond_the_limit_are_listed(self, tmp_path: Path) -> None:
        put_image(tmp_path / "a.png")
        (tmp_path / "bomb.png").write_bytes(stating(20000, 20000, "png"))
        source = open_source(tmp_path)
        assert [frame.name for frame in source.frames()] == ["a.png"]
        assert "400 megapixels), expected at most 150" in source.problems[0].what
        assert list(open_source(tmp_path / "a.png", ReadOptions(max_megapixels=0.000192)).frames())
        with pytest.raises(BadInputError, match="expected at most 0.00019 megapixels"):
            list(open_source(tmp_path / "a.png", ReadOptions(max_megapixels=0.00019)).frames())

    def test_a_file_larger_than_any_image_is_not_read(self, tmp_path: Path) -> None:
        with open(put_image(tmp_path / "a.png"), "ab") as file:
            file.truncate(2 << 30)  # sparse
        with pytest.raises(BadInputError, match="has 2147483648 bytes, expected at most 1267108864"):
            list(open_source(tmp_path / "a.png").frames())


class TestGlob:
    def test_one_folder_and_across_folders(self, tmp_path: Path) -> None:
        for name in ("a1.png", "a2.png", "b.png", "x/a3.png", "a4.txt.jpg"):
            put_image(tmp_path / name)
        assert names(open_source(f"{tmp_path}/a*.png")) == ["a1.png", "a2.png"]
        assert names(open_source(f"{tmp_path}/**/a*")) == ["a1.png", "a2.png", "a4.txt.jpg", "x/a3.png"]
        assert open_source(f"{tmp_path}/x/*.png").path == tmp_path / "x"

    def test_an_existing_name_wins_over_the_pattern(self, tmp_path: Path) -> None:
        put_image(tmp_path / "a[1].png")
        put_image(tmp_path / "a1.png")
        assert names(open_source(f"{tmp_path}/a[1].png")) == ["a[1].png"]

    def test_no_match_and_no_image(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="matches nothing"):
            open_source(f"{tmp_path}/*.png")
        (tmp_path / "a.txt").write_text("text")
        with pytest.raises(BadInputError, match="1 files, none of them an image"):
            open_source(f"{tmp_path}/*")

    def test_links_that_lead_back_end(self, tmp_path: Path) -> None:
        """Two of them give a number of paths that no computer lists."""
        for name in ("a.png", "x/b.png", "x/y/c.png", ".hidden/d.png"):
            put_image(tmp_path / name)
        (tmp_path / "loop").symlink_to(".")
        (tmp_path / "x" / "up").symlink_to("..")
        for spec in (f"{tmp_path}/**/*.png", f"{tmp_path}/**", f"{tmp_path}/**/**/*.png"):
            assert names(open_source(spec)) == ["a.png", "x/b.png", "x/y/c.png"]
        assert names(open_source(f"{tmp_path}/x/**/c.png")) == ["y/c.png"]
        assert names(open_source(tmp_path)) == ["a.png", "x/b.png", "x/y/c.png"]

    def test_upwards_after_a_wildcard(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="goes up"):
            open_source(f"{tmp_path}/*/../*.png")


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, since root may read anything."""
    put_image(tmp_path / "in" / "a.png")
    put_image(tmp_path / "in" / "locked" / "b.png")
    plain = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BadInputError, match="locked cannot be read: Permission denied"):
        open_source(tmp_path / "in")
