"""Files that anybody may have made: every limit, and damage in every form is one error."""

from __future__ import annotations

import os
import random
import struct
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.bounded import (
    DEPTH_MAX,
    INTEGER_MAX,
    Archive,
    MalformedError,
    parse_json,
    parse_names,
    parse_toml,
    read_file,
)

LIMIT = 1 << 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[NaN]", "the number nan"),
        ("[-Infinity]", "the number -inf"),
        ('{"a": [{"b": 1e400}]}', "the number inf"),
        ("[" + "9" * 5000 + "]", "not JSON" if sys.version_info >= (3, 11) else ""),
        (f"[{INTEGER_MAX + 1}]", "more than 64 bits"),
        (f"[{-INTEGER_MAX - 1}]", "more than 64 bits"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), f"deeper than {DEPTH_MAX} levels"),
        ("[" * 500_000, f"deeper than {DEPTH_MAX} levels"),
        ('{"a":' * 150_000, f"deeper than {DEPTH_MAX} levels"),
        ('{"a": 1, "b": 2, "a": 3}', "a name twice"),
        ('"' + "x" * LIMIT + '"', "larger than 1,048,576 bytes"),
    ],
    ids=range(14),
)
def test_json_that_is_not_taken(text: str | bytes, said: str) -> None:
    with pytest.raises(MalformedError, match=said):
        parse_json(text, LIMIT)


def test_json_at_its_limits() -> None:
    deep = "[" * DEPTH_MAX + "1" + "]" * DEPTH_MAX
    assert parse_json(deep, LIMIT) is not None
    assert parse_json(f"[{INTEGER_MAX}, {-INTEGER_MAX}, 1e308, true, null]", LIMIT)[0] == INTEGER_MAX
    assert parse_json('"' + "x" * (LIMIT - 2) + '"', LIMIT) == "x" * (LIMIT - 2)
    assert parse_names(b'{"\xc3\xa9": {"b": [1]}}', LIMIT) == {"é": {"b": [1]}}
    with pytest.raises(MalformedError, match="holds a list"):
        parse_names("[]", LIMIT)


@given(st.binary(max_size=60))
def test_noise_is_json_or_malformed(data: bytes) -> None:
    try:
        parse_json(data, LIMIT)
    except MalformedError:
        pass


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML came into Python with 3.11")
def test_toml_has_the_same_limits() -> None:
    assert parse_toml(b"a = 0.5", LIMIT) == {"a": 0.5}
    for text, said in (
        (b"a = inf", "the number inf"), (b"a = " + b"[" * 50_000, "deeper than"), (b"a = ", "not TOML"),
        (b"a = 1\na = 2", "not TOML"), (b"#" * (LIMIT + 1), "larger than"), (b"\xff", "not TOML"),
    ):  # fmt: skip
        with pytest.raises(MalformedError, match=said):
            parse_toml(text, LIMIT)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    assert read_file(path, 10) == b"x" * 10
    with pytest.raises(MalformedError, match="larger than 9 bytes"):
        read_file(path, 9)
    with path.open("wb") as file:  # 300 GB that take no room on the disk
        file.truncate(300 << 30)
    with pytest.raises(MalformedError, match="larger than 65,536 bytes"):
        read_file(path, 65536)


def test_a_small_file_takes_little_memory_whatever_its_kind_may_take(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    tracemalloc.start()
    try:
        read_file(path, 8 << 30)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    zero = tmp_path / "zero"
    zero.symlink_to("/dev/zero")
    for path in (fifo, zero):
        with pytest.raises(MalformedError, match="not a regular file"):
            read_file(path, LIMIT)
        with pytest.raises(MalformedError, match="not a regular file"):
            Archive(path)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path, LIMIT)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", LIMIT)


def archive_of(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_an_archive_is_read(tmp_path: Path) -> None:
    members = {"a": b"one", "b/c.png": bytes(range(256)) * 9000, "empty": b""}
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with Archive(archive_of(tmp_path / "a.zip", members, kind)) as archive:
            assert archive.names == set(members)
            assert {name: archive.read(name, 3 << 20) for name in members} == members
            archive.check()
            with pytest.raises(MalformedError, match="has no d"):
                archive.read("d", LIMIT)
            with pytest.raises(MalformedError, match=r"b/c.png is larger than 1,048,576 bytes"):
                archive.read("b/c.png", LIMIT)


def test_a_bomb_is_not_decompressed(tmp_path: Path) -> None:
    """300 MB of zeros in 300 kB that call themselves 1,000 bytes: no more than a block is ever made."""
    path = archive_of(tmp_path / "a.zip", {"bomb": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)
    with Archive(path) as archive, pytest.raises(MalformedError, match="bomb is larger"):
        archive.read("bomb", LIMIT)
    data = path.read_bytes()
    real, told = struct.pack("<I", 300 << 20), struct.pack("<I", 1000)
    path.write_bytes(data.replace(real, told))
    with Archive(path) as archive, pytest.raises(MalformedError, match="damaged or cut off: Bad CRC-32"):
        archive.read("bomb", LIMIT)


def test_archives_that_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for name in ("/etc/passwd", "a/../../b", "..", "a\\b"):
        with pytest.raises(MalformedError, match="leaves its folder"):
            Archive(archive_of(path, {name: b"x"}))
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(MalformedError, match="compressed in an unusual way"):
            Archive(archive_of(path, {"a": b"x" * 100}, kind))
    whole = archive_of(path, {"a": b"x" * 100}).read_bytes()
    entry = whole.index(b"PK\x01\x02")

    def changed(offset: int, value: bytes) -> Path:
        path.write_bytes(whole[: entry + offset] + value + whole[entry + offset + len(value) :])
        return path

    with pytest.raises(MalformedError, match="is encrypted"):
        Archive(changed(8, b"\x01\x00"))
    with pytest.raises(MalformedError, match="unusual way"):
        Archive(changed(10, b"\x63\x00"))
    with pytest.raises(MalformedError, match="overlap"):
        Archive(changed(20, struct.pack("<I", 5000)))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(MalformedError, match="one name"):
        Archive(path)
    for data in (b"", b"PK", random.Random(2).randbytes(3000)):
        path.write_bytes(data)
        with pytest.raises(MalformedError, match="damaged or cut off"):
            Archive(path)


def test_a_huge_directory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    size = 40 << 20
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 60000, 60000, size, 0, 0))
    with pytest.raises(MalformedError, match="directory is larger than 33,554,432 bytes"):
        Archive(path)


def test_a_flipped_bit_of_a_member_is_noticed(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", {"a": random.Random(1).randbytes(5000)})
    data = path.read_bytes()
    path.write_bytes(data[:2000] + bytes([data[2000] ^ 4]) + data[2001:])
    with Archive(path) as archive:
        with pytest.raises(MalformedError, match="CRC"):
            archive.check()
        with pytest.raises(MalformedError, match="CRC"):
            archive.read("a", LIMIT)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_with_random_damage_are_whole_or_malformed(tmp_path: Path, kind: int) -> None:
    members = {"a": b"one" * 50, "b": zlib.compress(bytes(1000)), "c": b""}
    path = archive_of(tmp_path / "a.zip", members, kind)
    data, rng = path.read_bytes(), random.Random(9)
    for _ in range(400):
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            spoilt[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(spoilt[: rng.choice((len(data), rng.randrange(len(data))))]))
        try:
            with Archive(path) as archive:
                for name in archive.names:
                    found = archive.read(name, LIMIT)
                    assert found in members.values()
        except MalformedError:
            continue


def test_files_are_closed(tmp_path: Path) -> None:
    """With the archive, and after a refusal."""
    before = len(os.listdir("/proc/self/fd"))
    path = archive_of(tmp_path / "a.zip", {"a": b"x"})
    for _ in range(3):
        Archive(path).close()
        (tmp_path / "b.zip").write_bytes(b"no archive")
        with pytest.raises(MalformedError):
            Archive(tmp_path / "b.zip")
    assert len(os.listdir("/proc/self/fd")) == before


def test_reading_a_short_file_takes_little_memory(tmp_path: Path) -> None:
    """However large a file of its kind may be: a machine with less memory reads it too."""
    path = tmp_path / "short"
    path.write_bytes(b"content")
    tracemalloc.start()
    try:
        assert read_file(path, 8 << 30) == b"content"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
