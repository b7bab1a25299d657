"""Records of the steps of `make gpu-proof`, one JSON object per line, and the tar that holds them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES, LOG_BYTES = 15_000_000, 200_000
"""Of a tar's members together (many places take files of 16 MB back), and of a log's end."""


class SkippedError(Exception):
    """The machine lacks what a step needs; the message names it."""


@dataclass(frozen=True)
class Context:
    """The arguments of a step.

    Attributes:
        device: ``"cuda"``, or ``"cpu"`` for a dry run: small inputs, emulated and interpreted kernels.
        carry: folder that `make gpu-proof-pack` wrote.
        work: folder for what the step writes beside its rows.
        results: folder with the rows of all steps, ``NAME.jsonl``.
        seconds: time limit of the step.
    """

    device: str
    carry: Path
    work: Path
    results: Path
    seconds: float

    @property
    def dry(self) -> bool:
        """True for a dry run without a GPU, whose times mean nothing."""
        return self.device == "cpu"

    def figures(self) -> dict[str, float]:
        """Read every figure that earlier steps found, by its key."""
        rows = [row for path in sorted(self.results.glob("*.jsonl")) for row in read_rows(path)]
        return {row["figure"]: row["value"] for row in rows if "figure" in row}


class Recorder:
    """Writes each row at once, so that a step that is cut off keeps its rows."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _write(self, **row: Any) -> None:
        os.write(self._file, (json.dumps(row) + "\n").encode())

    def row(self, table: str, cells: Mapping[str, Any]) -> None:
        """Add a row to the table of that title; the names of the cells are its columns."""
        self._write(table=table, cells=dict(cells))

    def figure(self, key: str, value: float) -> None:
        """Record a number under the key by which an estimate or a later step reads it."""
        self._write(figure=key, value=value)

    def wrong(self, text: str) -> None:
        """Record a wrong result."""
        self._write(wrong=text)

    def absent(self, what: str, reason: str) -> None:
        """Record what was not measured, and why."""
        self._write(absent=what, reason=reason)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the complete rows of a file; empty when the file is missing."""
    return parse_rows(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else []


def parse_rows(text: str) -> list[dict[str, Any]]:
    """Parse the lines that are complete JSON objects."""
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def write_tar(folder: Path, path: Path) -> None:
    """Write a folder's files into a tar, the smallest first; files that do not fit are left out and named.

    The file gets its name when it is whole, so a cut leaves the one before.
    """
    partial, left_out, total = path.with_name(f"{path.name}.part"), [], 0
    with tarfile.open(partial, "w:gz", compresslevel=6) as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(f"gpu-proof/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for file in sorted(folder.iterdir(), key=lambda file: (file.stat().st_size, file.name)):
            data = file.read_bytes()[-LOG_BYTES if file.suffix == ".log" else 0 :]
            if total + len(data) > MOST_BYTES:
                left_out.append(f"{file.name}: {len(data)} bytes")
            else:
                total += len(data)
                add(file.name, data)
        add("left-out.txt", "\n".join(left_out).encode())
    os.replace(partial, path)


def read_tar(path: Path) -> tuple[dict[str, str], str]:
    """Read the texts of a tar by file name as far as it is intact, and why some may be missing."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            while (member := archive.next()) is not None:
                content = archive.extractfile(member) if member.size <= MOST_BYTES else None
                if content is not None:
                    found[Path(member.name).name] = content.read().decode("utf-8", errors="replace")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        return found, f"the tar ends early or is damaged ({error})"
    return found, ""
