"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.video.media.small_images import write_irregular
from vmkla.errors import BadInputError
from vmkla.files import (
    create_file,
    file_sha256,
    make_folder,
    partial_pattern,
    read_regular,
    why_not_regular,
    write_whole,
    written_whole,
)


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
    if isinstance(caught.value, BadInputError):
        assert caught.value.message == f"cannot write {path}: No space left on device"
        assert (
            caught.value.hint
            == f"Free some space there, or give another folder: --out DIR (disk of {tmp_path})"
        )


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with (
        pytest.raises(BadInputError, match="cannot write .*taken/file: File exists"),
        written_whole(tmp_path / "taken/file"),
    ):
        raise AssertionError("the block must not begin")


@pytest.mark.parametrize(
    ("name", "reason"), [("n" * 256, "File name too long"), ("folder", "Is a directory")]
)
def test_a_name_that_no_file_can_get_is_refused_before_the_work(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInputError, match=f"cannot write .*{reason}"), written_whole(tmp_path / name):
        raise AssertionError("the block must not begin")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["report.json", "n" * 255, "ü" * 127, os.fsdecode(b"\xff" * 200)])
def test_the_temporary_file_fits_and_can_be_read_by_its_name(tmp_path: Path, name: str) -> None:
    with written_whole(tmp_path / name) as file:
        file.write(b"half")
        file.flush()
        partial = Path(file.name)
        assert partial.parent == tmp_path and partial.read_bytes() == b"half"
        assert list(tmp_path.glob(partial_pattern())) == [partial]
        assert len(os.fsencode(partial.name)) <= 143
        assert (list(tmp_path.glob(partial_pattern(name))) == [partial]) == (len(name) < 100)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5000)  # more than one piece
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInputError, match="none cannot be read"):
        file_sha256(tmp_path / "none")


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Every file of the test is made under this umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_and_folders_are_the_owners_alone_whatever_the_umask(
    umask: int, tmp_path: Path
) -> None:
    first, second = tmp_path / "a" / "b" / "first", tmp_path / "c" / "second"
    with written_whole(first) as file:
        partial = next(first.parent.iterdir())
        assert mode(partial) == 0o600
        file.write(b"1")
    write_whole(second, b"2")
    assert {mode(path) for path in (first, second)} == {0o600}
    assert {mode(path) for path in (tmp_path / "a", first.parent, second.parent)} == {0o700}


def test_an_artefact_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "models" / "model.onnx", private=False) as file:
            file.write(b"weights")
    finally:
        os.umask(before)
    assert mode(tmp_path / "models") == 0o750 and mode(tmp_path / "models" / "model.onnx") == 0o640


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    write_whole(tmp_path / "file", b"")
    assert mode(tmp_path) == 0o755
    (tmp_path / "link").symlink_to(tmp_path / "there", target_is_directory=True)
    (tmp_path / "there").mkdir()
    make_folder(tmp_path / "link" / "new")
    assert mode(tmp_path / "there" / "new") == 0o700 and mode(tmp_path / "there") != 0o700
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


def test_an_open_file_of_that_name_is_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "file"
    other.write_bytes(b"somebody's")
    path.symlink_to(other)
    os.close(create_file(path))
    assert other.read_bytes() == b"somebody's" and not path.is_symlink() and mode(path) == 0o600
    path.chmod(0o644)
    os.close(create_file(path))
    assert mode(path) == 0o600
    with pytest.raises(FileExistsError):
        create_file(path, replace=False)


def test_regular_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"content")
    link.symlink_to("a")
    for name in (path, link):
        assert why_not_regular(name) == "" and read_regular(name, limit_bytes=7) == b"content"
    with pytest.raises(BadInputError, match="has 7 bytes, expected at most 6"):
        read_regular(path, limit_bytes=6)
    assert why_not_regular(tmp_path / "absent") == "No such file or directory"
    with pytest.raises(BadInputError, match="absent cannot be read: No such file"):
        read_regular(tmp_path / "absent", limit_bytes=7)


def test_nothing_else_is_read(tmp_path: Path) -> None:
    """None of these hangs, grows or raises another error."""
    kinds = {
        "pipe": "a named pipe",
        "sock": "a socket",
        "zero": "a link to a device",
        "itself": "leads nowhere",
    }
    for name in write_irregular(tmp_path, ""):
        assert kinds.get(name, "") in why_not_regular(tmp_path / name)
        with pytest.raises(BadInputError, match=f"{name} cannot be read: "):
            read_regular(tmp_path / name, limit_bytes=100)
    assert "a folder" in why_not_regular(tmp_path)


def test_a_file_of_no_fixed_size_is_refused() -> None:
    """As those of /proc are, which state 0 bytes."""
    with pytest.raises(BadInputError, match="of a fixed size"):
        read_regular(Path("/proc/self/status"), limit_bytes=1 << 20)
