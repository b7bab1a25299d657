"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vmkla.errors import BadInputError
from vmkla.files import file_sha256, written_whole


def test_a_file_appears_whole_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    with written_whole(path) as file:
        file.write(b"one")
        file.flush()
        assert not path.exists()
    with written_whole(path) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), OSError(28, "No space left")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    expected = BadInputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught, written_whole(path) as file:
        file.write(b"half of the new")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path} cannot be written: No space left"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with (
        pytest.raises(BadInputError, match="taken/file cannot be written"),
        written_whole(tmp_path / "taken/file"),
    ):
        raise AssertionError("the block must not begin")


def test_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5000)  # more than one piece
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInputError, match="none cannot be read"):
        file_sha256(tmp_path / "none")
