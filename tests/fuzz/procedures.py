"""A run's files that ``vmkla report`` reads, in one file: report, lesion, and rows, one in a line each."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz import spoilers
from tests.fuzz.seeds import Seed
from tests.procedures.report.made_up import lesion, row, write_run


def run_files(folder: Path) -> list[Seed]:
    """Make the files of a run."""
    rows = [row(index, [1] if index % 3 else []) for index in range(12)]
    rows[4] |= {"poor": "blur", "lesion_events": [{"kind": "cut"}, {"kind": "ended", "lesion": 1}]}
    settings = {"threshold": 0.5, "peak": 0.6, "min_fraction": 0.005, "stride": 1}
    document = {"settings": settings, "warnings": ["one"], "model": {"class_names": ["polyp"], "path": "a"}}
    stored = lesion(1, 0.1, 1.1, gaps=[[0.2, 0.4]], **{"class": 1})
    write_run(folder / "run", rows, [stored], document)
    texts = [(folder / "run" / name).read_bytes().strip() for name in ("report.json", "lesions.jsonl")]
    return [(".txt", b"\n".join([*texts, (folder / "run" / "frames.jsonl").read_bytes()]))]


def spoil_run_files(data: bytes, rng: Random) -> bytes:
    """Spoil one of the documents."""
    lines = data.splitlines(keepends=True)
    place = rng.randrange(3)
    lines[place] = spoilers.spoil_json(lines[place].strip(), rng).replace(b"\n", b" ") + b"\n"
    return b"".join(lines)


def read_run_files(path: Path, out: Path) -> None:
    """``vmkla report`` on a folder with these files."""
    from vmkla.procedures.report.page import write_page

    report, _, rest = path.read_bytes().partition(b"\n")
    stored, _, rows = rest.partition(b"\n")
    folder = write_run(out / "run", [{}], [lesion(1)])
    for name, data in (("report.json", report), ("lesions.jsonl", stored), ("frames.jsonl", rows)):
        (folder / name).write_bytes(data)
    write_page(folder)
