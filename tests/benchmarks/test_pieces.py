"""Files in pieces come back whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pieces import PIECE_BYTES, join_file, split_file

from vmkla.errors import BadInputError


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(np.random.default_rng(1).bytes(2500))
    return path


def test_pieces_are_small_and_come_back_whole(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "result"
    pieces = split_file(original, folder, "net.safetensors", piece_bytes=1000)
    assert [piece.stat().st_size for piece in pieces] == [1000, 1000, 500]
    whole = join_file(folder / "net.safetensors.pieces.json")
    assert whole == folder / "net.safetensors" and whole.read_bytes() == original.read_bytes()
    assert PIECE_BYTES < 16_000_000


def test_a_second_split_leaves_no_old_piece(original: Path, tmp_path: Path) -> None:
    split_file(original, tmp_path / "r", "net", piece_bytes=500)
    original.write_bytes(b"short")
    split_file(original, tmp_path / "r", "net", piece_bytes=500)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["net.000", "net.pieces.json"]
    assert join_file(tmp_path / "r" / "net.pieces.json").read_bytes() == b"short"


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_pieces_are_refused(original: Path, tmp_path: Path, damage: str) -> None:
    pieces = split_file(original, tmp_path / "r", "net", piece_bytes=1000)
    if damage == "missing":
        pieces[1].unlink()
    else:
        pieces[1].write_bytes(b"\0" * 1000)
    with pytest.raises(BadInputError, match=r"net\.001" if damage == "missing" else "do not make"):
        join_file(tmp_path / "r" / "net.pieces.json")
    assert not (tmp_path / "r" / "net").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pieces": 3}'])
def test_a_damaged_list_is_refused(tmp_path: Path, text: str) -> None:
    listing = tmp_path / "net.pieces.json"
    listing.write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match="cannot be read as a list of pieces"):
        join_file(listing)
