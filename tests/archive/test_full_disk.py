"""A disk that is really full: a small one of memory, in a mount namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import FIND_TESTS
from tests.archive.batches import write_archive
from tests.faults.record import can_mount

ON_A_DISK = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'
BATCH = """
import json, os, sys
from pathlib import Path
from tests.archive.batches import InlineExecutor, contents, driver_options, open_red
from vmkla.archive.batch import raise_end, run_batch
from vmkla.archive.work import find_work
from vmkla.errors import DegradedError
from vmkla.video.cancellation import Cancellation

archive, disk = map(Path, sys.argv[1:])
out, filler = disk / "out", disk / "filler"
folder = open_red(out)
with filler.open("wb") as file:  # leave what the outputs of a few pieces and the reserve of one need
    file.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - (6 << 20)))

def run():
    entries = find_work([archive], out).entries
    return run_batch(folder, entries, InlineExecutor(), driver_options(out), Cancellation())

tally, records = run()
try:
    raise_end(tally, Cancellation(), out)
    status = 0
except DegradedError as error:
    status = error.exit_status
before = contents(out / "results")
left = os.listdir(folder.work), os.listdir(folder.claims), os.listdir(folder.failed)
filler.unlink()
again, all_records = run()
kept = {name: value for name, value in contents(out / "results").items() if name in before}
print(json.dumps({
    "tally": vars(tally), "status": status, "left": left, "published": len(records), "again": vars(again),
    "kept": kept == before, "all": len(all_records),
}))
"""


@pytest.mark.slow
@pytest.mark.hardware
def test_what_is_published_on_a_full_disk_stays_and_the_rest_follows(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("this account may not mount a disk of memory")
    disk, archive = tmp_path / "disk", write_archive(tmp_path / "archive", 40)
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "-rUm", "sh", "-c", ON_A_DISK, "120m", str(disk)]
        + [sys.executable, "-I", "-c", FIND_TESTS + BATCH, str(archive), str(disk)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["status"] == 7 and seen["tally"]["stopped"].startswith("the disk is full: ")
    assert 0 < seen["published"] == seen["tally"]["done"] < 40
    assert seen["tally"]["failed"] == 0 and seen["tally"]["left"] == 40 - seen["published"]
    assert seen["left"] == [[], [], []] and seen["kept"]
    assert seen["again"]["done"] == 40 - seen["published"] and seen["all"] == 40
