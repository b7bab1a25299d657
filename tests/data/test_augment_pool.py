"""Worker processes: the same batches as without, one copy of the set, and an end for all when one ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled_folders import labelled_image
from vmkla.data import augment_pool, shared
from vmkla.data.arrays import LabelledArrays, TrainLoader
from vmkla.data.augment import AugmentConfig
from vmkla.errors import UsageError, VmklaError

SIZE_HW = (32, 48)


def images(count: int = 23, side_hw: tuple[int, int] = (40, 60)) -> LabelledArrays:
    made = [labelled_image(seed, *side_hw) for seed in range(count)]
    names = tuple(f"case-{number:02d}" for number in range(count))
    return LabelledArrays(names, *(np.stack(kind) for kind in zip(*made, strict=True)))


def loader(workers: int, config: AugmentConfig | None = None, **changes: object) -> TrainLoader:
    settings = {"batch_size": 10, "size_hw": SIZE_HW, "seed": 2, **changes}
    return TrainLoader(images(), config=config or AugmentConfig(), workers=workers, **settings)  # type: ignore[arg-type]


@pytest.fixture
def two() -> Iterator[TrainLoader]:
    made = loader(2)
    yield made
    made.close()


def same(first: LabelledArrays, second: LabelledArrays) -> bool:
    return (
        first.names == second.names
        and np.array_equal(first.images_rgb, second.images_rgb)
        and np.array_equal(first.masks, second.masks)
    )


def pids_of(loader: TrainLoader) -> list[int]:
    assert loader._pool is not None
    return loader._pool.pids


def shared_fds() -> list[str]:
    """Descriptors of shared memory that this process has."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += [fd.name] if "vmkla-augment" in os.readlink(fd) else []
    return found


def are_gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether processes end by then; a zombie has ended."""
    until_s = time.monotonic() + seconds
    while any(_runs(pid) for pid in pids):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.02)
    return True


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_makes_the_same_batches(workers: int) -> None:
    """Also of a part of each batch, of the rest of an epoch, and after an epoch that was left early."""
    whole, part = loader(0, quiet_share=0.5), loader(0, part=slice(5, 10))
    expected = [list(whole.epoch(epoch)) for epoch in range(3)]
    many = loader(workers, quiet_share=0.5)
    try:
        left = many.epoch(2)
        assert same(next(left), expected[2][0])
        left.close()  # type: ignore[attr-defined]
        for epoch in range(3):
            assert all(same(*pair) for pair in zip(many.epoch(epoch), expected[epoch], strict=True))
        assert all(same(*pair) for pair in zip(many.epoch(1, 1), expected[1][1:], strict=True))
        assert len(expected[0]) == 3 and len(expected[0][0]) == 10
    finally:
        many.close()
    some = loader(workers, part=slice(5, 10))
    try:
        assert all(same(*pair) for pair in zip(some.epoch(0), part.epoch(0), strict=True))
    finally:
        some.close()


def test_a_batch_stays_as_it_is_while_later_ones_are_made(two: TrainLoader) -> None:
    """The room in shared memory is used again; what was handed out is a copy."""
    taken = [batch for epoch in range(4) for batch in two.epoch(epoch)]
    one = loader(0)
    assert all(
        same(*pair) for pair in zip(taken, (b for epoch in range(4) for b in one.epoch(epoch)), strict=True)
    )


def test_the_set_is_in_memory_once(two: TrainLoader) -> None:
    """Workers map it for reading; it is the memory that the loader has."""
    list(two.epoch(0))
    mine = {inode for _, inode in shared_maps("self")}
    found = [shared_maps(pid) for pid in pids_of(two)]
    assert found[0] == found[1] and sorted(rights for rights, _ in found[0]) == ["r--s", "rw-s"]
    assert {inode for _, inode in found[0]} <= mine


def shared_maps(pid: int | str) -> set[tuple[str, str]]:
    """Rights and inode of the memory that a process shares with others of the training."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {tuple(line.split()[1:5:3]) for line in lines if "vmkla-augment" in line}  # type: ignore[misc]


def test_an_image_that_cannot_be_augmented_is_named() -> None:
    """Without a warp an image keeps its size, which is not that of the batch."""
    messages = []
    for workers in (0, 1):
        failing = loader(workers, AugmentConfig.off())
        first = failing.arrays.names[failing.rows(0)[0][0]]
        with pytest.raises(
            VmklaError, match=f"{first} could not be augmented: an image of .*needs a warp"
        ) as caught:
            list(failing.epoch(0))
        assert caught.value.exit_status == UsageError.exit_status
        messages.append(caught.value.message)
        failing.close()
    assert messages[0] == messages[1]


def test_one_epoch_at_a_time(two: TrainLoader) -> None:
    pool = two._pool
    assert pool is not None
    batches = pool.batches(0, [[0], [1]])
    next(batches)
    with pytest.raises(VmklaError, match="another epoch's batches are being made"):
        next(pool.batches(1, [[0]]))
    batches.close()
    assert len(list(pool.batches(1, [[0], [1]]))) == 2


def test_a_worker_that_is_killed_is_an_error_that_says_so(two: TrainLoader) -> None:
    pids = pids_of(two)
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(VmklaError, match=f"worker {pids[0]} was ended by SIGKILL.*memory runs out") as caught:
        for epoch in range(1000):
            list(two.epoch(epoch))
    assert "--workers" in str(caught.value.hint) and "--resume" in str(caught.value.hint)
    assert are_gone(pids)
    with pytest.raises(VmklaError, match="workers have ended"):
        list(two.epoch(0))


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_pool, "_BOOT", "raise SystemExit(3)")
    failing = loader(1)
    with pytest.raises(VmklaError, match="ended with status 3"):
        list(failing.epoch(0))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(VmklaError, match="cannot be started: .*No such file"):
        loader(1)


def test_memory_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared.os, "posix_fallocate", refuse)
    gc.collect()  # what earlier tests' tracebacks hold
    before = shared_fds()
    with pytest.raises(VmklaError, match="no memory for 23 images of 40x60 pixels, 0 MB: No space") as caught:
        loader(2)
    assert "--workers 0" in str(caught.value.hint)
    assert shared_fds() == before


def test_closing_ends_the_workers_and_gives_everything_back() -> None:
    gc.collect()
    before = shared_fds()
    made = loader(2)
    assert made._pool is not None
    connections = [worker.connection for worker in made._pool._workers]
    pids = pids_of(made)
    batches = made.epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert "vmkla-train-loader" not in [thread.name for thread in threading.enumerate()]
    made.close()
    made.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # and no zombies
    assert all(connection.closed for connection in connections)
    del made, batches
    gc.collect()
    assert shared_fds() == before


def test_a_worker_that_is_stopped_holds_up_no_end(two: TrainLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_pool, "_END_S", 0.2)
    pids = pids_of(two)
    batches = two.epoch(0)
    next(batches)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    begun_s = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    two.close()
    assert time.monotonic() - begun_s < 10 and not any(_runs(pid) for pid in pids)


SCRIPT = """
    import sys
    import numpy as np
    from vmkla.data.arrays import LabelledArrays, TrainLoader
    from vmkla.data.augment import AugmentConfig

    rng = np.random.default_rng(0)
    arrays = LabelledArrays(
        tuple("abcdefgh"), rng.integers(0, 256, (8, 40, 40, 3), np.uint8), np.ones((8, 40, 40), np.uint8)
    )
    loader = TrainLoader(
        arrays, batch_size=4, size_hw=(32, 32), config=AugmentConfig(), seed=0, workers=2
    )
    print(len(list(loader.epoch(0))), *loader._pool.pids, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "goes on"])
def test_a_script_without_a_main_guard_works_and_leaves_no_process(tmp_path: Path, end: str) -> None:
    """The whole script at module level, its loader never closed; it ends by SIGKILL, or of itself."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "signal.py").write_text("raise RuntimeError('the wrong module')")  # not found by the workers
    process = subprocess.Popen(
        [sys.executable, "-I", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        count, *pids = map(int, process.stdout.readline().split())
        assert count == 2 and len(pids) == 2 and all(_runs(pid) for pid in pids)
        if end == "killed":
            process.kill()
        process.stdin.close()
        assert process.wait(30) == (-signal.SIGKILL if end == "killed" else 0)
        assert are_gone(pids)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
