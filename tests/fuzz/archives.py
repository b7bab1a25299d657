"""A batch's files in one: settings, record, digest and claim in a line each, then a manifest."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from random import Random

from tests.archive.batches import open_red
from tests.archive.test_records import DONE
from tests.fuzz import spoilers
from tests.fuzz.seeds import Seed
from vmkla.archive.identity import Hashed
from vmkla.video.media.parts import Part
from vmkla.video.media.sinks import to_json

_LINES = 4


def batch_files(folder: Path) -> list[Seed]:
    """Make the files of a batch."""
    opened = open_red(folder / "batch")
    lines = [
        to_json({"threshold": 0.5, "roi": [1, 2, 3, 4], "model_sha256": "a" * 64, "alpha": None}),
        to_json(dataclasses.asdict(DONE)),
        to_json(["b" * 64, dataclasses.asdict(Hashed("c" * 64, (Part(0, 9, 0), Part(9, 12, 900, 0)), 1.0))]),
        to_json({"owner": opened.owner, "lease_s": 120.0}),
        b"source,id\nlist.csv,one\n.,two\n",
    ]
    return [(".txt", b"\n".join(lines))]


def spoil_batch_files(data: bytes, rng: Random) -> bytes:
    """Spoil one of the documents."""
    lines = data.split(b"\n", _LINES)
    place = rng.randrange(_LINES + 1)
    if place == _LINES:
        lines[place] = spoilers.spoil_bytes(lines[place], rng)
    else:
        lines[place] = spoilers.spoil_json(lines[place], rng).replace(b"\n", b" ")
    return b"\n".join(lines)


def read_batch_files(path: Path, out: Path) -> None:
    """Read them as ``vmkla batch`` does."""
    from vmkla.archive.claims import Claims
    from vmkla.archive.identity import KnownDigests
    from vmkla.archive.layout import check_settings
    from vmkla.archive.records import Records
    from vmkla.archive.summary import write_summary
    from vmkla.archive.work import read_manifest

    settings, record, digest, claim, manifest = path.read_bytes().split(b"\n", _LINES)
    shutil.rmtree(out / "batch", ignore_errors=True)
    folder = open_red(out / "batch")
    (folder.results / "k1").mkdir()
    (folder.results / "k1" / "piece.json").write_bytes(record)
    (folder.hashes / "other.jsonl").write_bytes(digest + b"\n")
    (folder.claims / "k2.1").write_bytes(claim)
    write_summary(folder.path, Records(folder).write_status())
    KnownDigests(folder.hashes, folder.owner)
    with Claims(folder, 60.0) as claims:
        claims.take("k2")
    folder.settings.write_bytes(settings)
    (folder.path / "list.csv").write_bytes(manifest)
    read_manifest(folder.path / "list.csv")
    check_settings(folder, {"threshold": 0.5, "roi": [1, 2, 3, 4], "model_sha256": "a" * 64, "alpha": None})
