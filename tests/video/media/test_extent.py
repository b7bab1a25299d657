"""vmkla.video.media.extent: a cut-off file is told from a whole one by its headers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmkla.video.media.extent import read_extent


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov"])
def test_whole_files_are_whole_and_every_cut_shows(
    name: str, write_clip: Callable[..., Path], make_frames: Callable[..., Any], cut_at: Callable[..., Path]
) -> None:
    path = write_clip(name, make_frames(12, 48, 64))
    extent = read_extent(path)
    assert extent.promised_bytes == extent.size_bytes == path.stat().st_size
    assert not extent.cut_off and extent.has_index
    for share in (0.95, 0.7, 0.5):
        cut_at(path, int(extent.size_bytes * share))
        assert read_extent(path).cut_off


def test_mp4_whose_index_is_lost(
    write_clip: Callable[..., Path], make_frames: Callable[..., Any], cut_at: Callable[..., Path]
) -> None:
    path = write_clip("a.mp4", make_frames(12, 48, 64), movflags=None)
    assert read_extent(path).has_index
    assert not read_extent(cut_at(path, path.stat().st_size // 2)).has_index


def test_fragmented_mp4(write_clip: Callable[..., Path], make_frames: Callable[..., Any]) -> None:
    path = write_clip("a.mp4", make_frames(12, 48, 64), movflags="frag_keyframe+empty_moov")
    extent = read_extent(path)
    assert extent.has_index and not extent.cut_off


def test_large_boxes_and_boxes_to_the_end(tmp_path: Path) -> None:
    """Sizes of 64 bits, and a size of 0 that means: to the end of the file."""
    path = tmp_path / "a.mp4"
    head = (16).to_bytes(4, "big") + b"ftypisom\0\0\0\0" + (8).to_bytes(4, "big") + b"moov"
    path.write_bytes(head + b"\0\0\0\1mdat" + (5 << 32).to_bytes(8, "big") + bytes(64))
    assert read_extent(path).promised_bytes == len(head) + (5 << 32)
    assert read_extent(path).cut_off
    path.write_bytes(head + b"\0\0\0\0mdat" + bytes(64))
    assert not read_extent(path).cut_off


@pytest.mark.parametrize(
    "data", [b"", b"short", b"plain text, long enough to have a header" * 9, b"\x1a\x45\xdf\xa3", bytes(64)]
)
def test_unknown_files_promise_nothing(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    assert not read_extent(path).cut_off


def test_a_live_recorded_matroska_promises_nothing(
    write_clip: Callable[..., Path], make_frames: Callable[..., Any], cut_at: Callable[..., Path]
) -> None:
    path = write_clip("a.mkv", make_frames(12, 48, 64))
    data = bytearray(path.read_bytes())
    position = data.index(b"\x18\x53\x80\x67") + 4
    data[position : position + 8] = b"\x01" + b"\xff" * 7  # size unknown
    path.write_bytes(data)
    assert not read_extent(cut_at(path, len(data) // 2)).cut_off
