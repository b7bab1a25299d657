"""Kill drivers and workers of a batch at random, and compare its results with those of an undisturbed one.

By hand: ``.venv/bin/python tests/archive/kills.py --kills 1000 --pieces 1000``
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests import FIND_TESTS
from tests.archive.batches import contents, published, write_archive

DRIVE = """
import sys
from pathlib import Path
from tests.archive.batches import SlowRunner, driver_options, open_red
from vmkla.archive.batch import run_batch
from vmkla.archive.work import find_work
from vmkla.archive.worker import Limits, LocalExecutor
from vmkla.video.cancellation import Cancellation

archive, out = map(Path, sys.argv[1:3])
part_s = float(sys.argv[3])
entries = find_work([archive], out).entries
executor = LocalExecutor(SlowRunner, 2, Limits())
options = driver_options(out, lease_s=2.0, part_s=part_s)
tally, _ = run_batch(open_red(out), entries, executor, options, Cancellation())
print(tally, flush=True)
sys.exit(tally.failed + tally.failed_earlier + tally.left)
"""


SPREAD_OVER = 0.8
"""Share of the pieces that the kills are spread over; the last ones end undisturbed."""


@dataclass
class Killing:
    """What was killed, and what it cost.

    Attributes:
        drivers, workers: number of processes that were killed.
        pieces: number of pieces.
        repeated: attempts beyond one for each piece.
        seconds: time of the whole.
    """

    drivers: int = 0
    workers: int = 0
    pieces: int = 0
    repeated: int = 0
    seconds: float = 0.0


def drive(archive: Path, out: Path, part_s: float = 0.0) -> subprocess.Popen[bytes]:
    """Start a driver with two workers, which cuts videos into parts of at least so many seconds."""
    command = [sys.executable, "-I", "-c", FIND_TESTS + DRIVE, str(archive), str(out), str(part_s)]
    return subprocess.Popen(command, cwd=archive.parent)


def children(pid: int) -> list[int]:
    """Return the workers of a driver, without the helper process of ``multiprocessing``."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().startswith("vmkla-batch"):
                found.append(int(child))
    return found


def kill_at_random(
    archive: Path, out: Path, kills: int, *, mean_s: float, seed: int, part_s: float = 0.0
) -> Killing:
    """Kill drivers and workers at random, spread over the pieces, then let it end.

    The k-th kill waits until its share of the pieces is published, so a fast machine does not end before.

    Args:
        archive: folder with sources.
        out: folder of the batch.
        kills: number of kills.
        mean_s: mean time from that, seconds: the kills meet a piece in all of its stages.
        seed: seed of the times and the choices.
        part_s: shortest part of a video, seconds; 0 cuts none.
    """
    rng, killing, began_s = random.Random(seed), Killing(), time.monotonic()
    each = SPREAD_OVER * len(os.listdir(archive)) / kills
    driver = drive(archive, out, part_s)
    while killing.drivers + killing.workers < kills:
        due = int(each * (killing.drivers + killing.workers))
        while driver.poll() is None and (published(out) < due or not children(driver.pid)):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 2 * mean_s))
        if driver.poll() is not None:
            break
        workers = children(driver.pid)
        if rng.random() < 0.2:
            driver.kill()
            driver.wait()
            killing.drivers += 1
            driver = drive(archive, out, part_s)
        elif workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                killing.workers += 1
    assert driver.wait(timeout=3600) == 0
    lines = [json.loads(line) for line in (out / "status.jsonl").read_text().splitlines()]
    killing.pieces = len(lines)
    killing.repeated = sum(line["attempts"] for line in lines) - len(lines)
    killing.seconds = round(time.monotonic() - began_s, 1)
    return killing


def compare(out: Path, undisturbed: Path) -> None:
    """Check that nothing is lost, double or different, and that nothing is left over."""
    assert sorted(os.listdir(out / "results")) == sorted(os.listdir(undisturbed / "results"))
    for piece in os.listdir(undisturbed / "results"):
        assert contents(out / "results" / piece) == contents(undisturbed / "results" / piece), piece
    for folder in ("work", "claims", "failed", "parts"):
        path = out / ".batch" / folder
        assert not path.exists() or os.listdir(path) == [], (folder, os.listdir(path))


def main() -> None:
    """Kill by hand, in a temporary folder, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--pieces", type=int, default=1000)
    parser.add_argument("--mean-s", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part-s", type=float, default=0.0)
    parser.add_argument("--frames", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = write_archive(Path(folder, "archive"), arguments.pieces, frames=arguments.frames)
        assert drive(archive, Path(folder, "undisturbed")).wait() == 0
        out = Path(folder, "out")
        killing = kill_at_random(
            archive,
            out,
            arguments.kills,
            mean_s=arguments.mean_s,
            seed=arguments.seed,
            part_s=arguments.part_s,
        )
        compare(out, Path(folder, "undisturbed"))
    print(json.dumps(asdict(killing)))


if __name__ == "__main__":
    main()
