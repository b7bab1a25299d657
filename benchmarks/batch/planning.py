"""Measure planning and claiming of many pieces: seconds, memory, and whether they grow linearly.

    python benchmarks/batch/planning.py                        # 10,000 and 100,000 pieces
    python benchmarks/batch/planning.py --pieces 1000 2000

The archive is made of sparse files of different sizes; their digests are made up and put into the cache, as
an earlier run would have left them, so no source is read. Each number of pieces runs in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.common import Table
from tests.archive.batches import driver_options
from vmkla.archive.claims import Claim, Claims
from vmkla.archive.identity import piece_key, source_stamp
from vmkla.archive.layout import BatchFolder, open_batch
from vmkla.archive.plan import plan_batch
from vmkla.archive.records import PieceRecord, Records
from vmkla.archive.summary import write_summary
from vmkla.archive.work import Entry, find_work
from vmkla.video.media.sinks import to_json

_PER_FOLDER = 1000
_IN_HAND = 64
"""Pieces that are claimed at one time: those that the workers of a large machine have in hand."""


@dataclass(frozen=True)
class Planning:
    """Times of one number of pieces, seconds, and memory.

    Attributes:
        pieces: number of pieces.
        find_s: find them in folders.
        plan_s: sort them, with all digests known.
        claim_s: claim each, as one process that has 64 in hand.
        publish_s: publish and finish each.
        status_s: write status and summary.
        again_s: plan once more, when all are done.
        memory_mb: largest resident memory of the process, MB.
    """

    pieces: int
    find_s: float
    plan_s: float
    claim_s: float
    publish_s: float
    status_s: float
    again_s: float
    memory_mb: float


def write_archive(folder: Path, pieces: int) -> None:
    """Write sparse files of different sizes."""
    for number in range(pieces):
        path = folder / f"{number // _PER_FOLDER:04d}" / f"{number:06d}.mp4"
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(1000 + number)


def timed(call: Callable[[], object]) -> float:
    """Return the time of a call, seconds."""
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def publish(batch: BatchFolder, records: Records, entry: Entry, claim: Claim, digest: str) -> None:
    """Publish a piece as a worker would that made nothing but its facts."""
    private = batch.work / claim.key
    private.mkdir()
    facts = {"kind": "video", "frames": 900, "regions": 3, "lesions": 1, "alarms": 2, "recorded_s": 30.0}
    record = PieceRecord(
        claim.key, entry.id, "done", "", None, 1, "one/0", 9.0, digest, f"results/{claim.key}", facts
    )
    assert records.publish(private, record)


def measure(folder: Path, pieces: int) -> Planning:
    """Simulate a batch whose pieces take no time."""
    archive, out = folder / "archive", folder / "out"
    write_archive(archive, pieces)
    settings = driver_options(out).settings
    batch = open_batch(out, settings)
    find_s = timed(lambda: find_work([archive], out))
    entries = find_work([archive], out).entries
    assert len(entries) == pieces
    digests = {entry.id: hashlib.sha256(entry.id.encode()).hexdigest() for entry in entries}
    lines = (to_json([source_stamp(entry), {"digest": digests[entry.id]}]) + b"\n" for entry in entries)
    (batch.hashes / "simulated.jsonl").write_bytes(b"".join(lines))
    plan_s = timed(lambda: plan_batch(batch, entries, settings, retry_failed=False))
    keys = [piece_key(digests[entry.id], settings) for entry in entries]
    records = Records(batch)
    claim_s = publish_s = 0.0
    with Claims(batch, 3600) as claims:
        for first in range(0, pieces, _IN_HAND):
            chosen = slice(first, first + _IN_HAND)
            began_s = time.perf_counter()
            held = [claims.take(key) for key in keys[chosen]]
            claimed_s = time.perf_counter()
            for entry, claim in zip(entries[chosen], held, strict=True):
                assert claim is not None
                publish(batch, records, entry, claim, digests[entry.id])
                claims.finish(claim)
            claim_s += claimed_s - began_s
            publish_s += time.perf_counter() - claimed_s
    later = Records(batch)
    status_s = timed(lambda: write_summary(out, later.write_status()))
    again_s = timed(lambda: plan_batch(batch, entries, settings, retry_failed=False))
    assert plan_batch(batch, entries, settings, retry_failed=False).done == pieces
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Planning(pieces, find_s, plan_s, claim_s, publish_s, status_s, again_s, memory_mb)


def main() -> None:
    """Measure each number in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pieces", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(measure(Path(folder), arguments.pieces[0]))))
        return
    columns = ("pieces", "find, s", "plan, s", "claim, s", "publish, s", "status and summary, s")
    table = Table("Planning and claiming, simulated", (*columns, "plan when all are done, s", "memory, MB"))
    for pieces in arguments.pieces:
        command = [sys.executable, __file__, "--one", "--pieces", str(pieces)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        table.add(*json.loads(done.stdout).values())
    print(table.markdown())


if __name__ == "__main__":
    main()
