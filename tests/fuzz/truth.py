"""Annotations of recordings: each kind of file of each layout, and the reader of the layout that it is in."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.evaluation.truth import miniatures
from tests.fuzz import spoilers
from tests.fuzz.seeds import Seed

_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    ".json": (miniatures.coco, "annotations/truth.json"),
    ".txt": (miniatures.mot, "exam/gt/gt.txt"),
    ".ini": (miniatures.mot, "exam/seqinfo.ini"),
    ".xml": (miniatures.real_colon, "001-001_annotations/001-001_107.xml"),
    ".csv": (miniatures.real_colon, "video_info.csv"),
    ".png": (miniatures.masks, "exam/masks/shot003.png"),
}
"""Suffix -> what writes the miniature that the file is of, and its place there."""

_NUMBERS = (b"", b"0", b"-1", b"-0.5", b"1e308", b"9" * 25, b"nan", b"inf", b"a", b"1_0", "٣".encode())


@functools.cache
def _miniature(make: Callable[[Path], None]) -> dict[str, bytes]:
    """The files of a miniature by their places."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def truth_seeds() -> list[Seed]:
    """Return a sound file of each kind."""
    return [(suffix, _miniature(make)[place]) for suffix, (make, place) in _FILES.items()]


def spoil_truth(data: bytes, rng: Random) -> bytes:
    """Change a file; of half of the texts only a number."""
    if data.startswith(b"\x89PNG") or rng.random() < 0.5:
        return spoilers.spoil_bytes(data, rng)
    if data.startswith(b"{"):
        return spoilers.spoil_json(data, rng)
    numbers = list(re.finditer(rb"\d+", data))
    start, end = rng.choice(numbers).span() if numbers else (0, 0)
    return data[:start] + rng.choice(_NUMBERS) + data[end:]


def read_truth(path: Path, out: Path) -> None:
    """Open the miniature with the file in its place, and read the truth of every frame."""
    from vmkla.evaluation.truth.layouts import open_annotated
    from vmkla.evaluation.truth.records import TruthRules

    make, place = _FILES[path.suffix]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for name, data in _miniature(make).items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(path.read_bytes() if name == place else data)
        rules = TruthRules(30.0 if make is miniatures.masks else None)
        for recording in open_annotated(Path(folder), rules).recordings:
            for truth in recording.truth.values():
                truth.marks((miniatures.HEIGHT, miniatures.WIDTH))
