"""What the steps of `make gpu-proof` find, one JSON object a line, and the one file that they leave."""

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
    """What a step is given.

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
        """No GPU takes part: times say nothing."""
        return self.device == "cpu"

    def figures(self) -> dict[str, float]:
        """Every figure that the steps before this one found, by its key."""
        rows = [row for path in sorted(self.results.glob("*.jsonl")) for row in read_rows(path)]
        return {row["figure"]: row["value"] for row in rows if "figure" in row}


class Recorder:
    """Writes rows, each at once: a step that is cut off keeps those that it has."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _write(self, **row: Any) -> None:
        os.write(self._file, (json.dumps(row) + "\n").encode())

    def row(self, table: str, cells: Mapping[str, Any]) -> None:
        """A row of the table of that title; the cells' names are its columns."""
        self._write(table=table, cells=dict(cells))

    def figure(self, key: str, value: float) -> None:
        """A number that an estimate or a later step asks for by its key."""
        self._write(figure=key, value=value)

    def wrong(self, text: str) -> None:
        """A result that is not what it must be."""
        self._write(wrong=text)

    def absent(self, what: str, reason: str) -> None:
        """Something that was not measured, and why."""
        self._write(absent=what, reason=reason)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a file; none where there is none."""
    return parse_rows(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else []


def parse_rows(text: str) -> list[dict[str, Any]]:
    """The lines that are JSON objects; one that was cut off is none."""
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
    """Write a folder's files, the smallest first; what does not fit any more is left out and named.

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
    """The texts of a tar by file name, as far as it can be read, and why they may not be all."""
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
