"""Read spoilt files one after another, in a process that may crash.

    python tests/fuzz/worker.py TARGET FOLDER SEED FIRST SECONDS
    python tests/fuzz/worker.py TARGET FOLDER FILE

Prints a line before each input (``run N``) and one after it: ``ok``, ``refused STATUS`` or ``failed``, the
last with the exception, where it came from and the traceback, as JSON. The input lies in FOLDER meanwhile,
and stays there when it fails.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from tests.fuzz.seeds import Seed
from tests.fuzz.targets import TARGETS, Target, check_whole
from vmkla.errors import VmklaError

MAX_MORE_MEMORY_BYTES = 2 << 30
MAX_FILE_BYTES = 256 << 20
WRITES_RESULTS, GOES_ON = ("videos", "images"), ("records",)


def limit_memory() -> None:
    """Limit the process to its present memory plus a margin; beyond it a MemoryError is raised."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MAX_MORE_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_one(name: str, target: Target, path: Path, out: Path) -> str:
    """Read one input and return the outcome as text."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        try:
            target.read(path, out)
            verdict = "ok"
        except VmklaError as error:
            assert 2 <= error.exit_status <= 7, f"status {error.exit_status}: {error!r}"
            verdict = f"refused {error.exit_status}"
        if name in WRITES_RESULTS or (name in GOES_ON and verdict == "ok"):
            check_whole(out)
    except BaseException as error:
        return f"failed {json.dumps([_place(error), traceback.format_exc()])}"
    return verdict


def _place(error: BaseException) -> str:
    """Return the exception's type and its last line in vmkla, which identify a fault."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if ".venv" not in frame.filename and "lib/python" not in frame.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def read_sound(name: str, target: Target, sound: list[Seed], folder: Path) -> list[str]:
    """Read the files before they are spoilt; some may be refused, none may fail."""
    verdicts = []
    for suffix, data in sound:
        path = folder / f"sound{suffix}"
        path.write_bytes(data)
        verdicts.append(read_one(name, target, path, folder / "out"))
        assert not verdicts[-1].startswith("failed"), f"a sound {suffix} fails: {verdicts[-1]}"
        path.unlink()
    assert "ok" in verdicts, verdicts
    return verdicts


def main(arguments: list[str]) -> int:
    """Run until the time is over; status 1 when the one file given fails."""
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what native code prints is no answer
    name, folder = arguments[0], Path(arguments[1])
    target = TARGETS[name]
    out = folder / "out"
    if len(arguments) == 3:
        verdict = read_one(name, target, Path(arguments[2]), out)
        print(verdict if not verdict.startswith("failed") else json.loads(verdict[7:])[1], file=answers)
        return int(verdict.startswith("failed"))
    seed, first, seconds = arguments[2], int(arguments[3]), float(arguments[4])
    (folder / "seeds").mkdir(exist_ok=True)
    sound = target.seeds(folder / "seeds")
    shutil.rmtree(folder / "seeds")
    verdicts = read_sound(name, target, sound, folder)
    limit_memory()
    assert read_sound(name, target, sound, folder) == verdicts, "memory is short for sound files"
    print("ready", file=answers)
    end_s = time.monotonic() + seconds
    number = first
    while time.monotonic() < end_s:
        rng = Random(f"{name}/{seed}/{number}")
        suffix, data = rng.choice(sound)
        path = folder / f"input{suffix}"
        path.write_bytes(target.spoil(data, rng))
        print(f"run {number}", file=answers)
        verdict = read_one(name, target, path, out)
        path.rename(folder / f"failed-{number}{suffix}") if verdict.startswith("failed") else path.unlink()
        print(verdict, file=answers)
        number += 1
    print("end", file=answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
