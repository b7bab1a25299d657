"""Spoilt files of every kind are read or refused, and nothing else happens.

pytest tests/fuzz --fuzz-seconds 3600 --fuzz-seed 7
pytest tests/fuzz --fuzz-input runs/fuzz/videos-7-123.mp4
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.conftest import SECONDS
from tests.fuzz.fuzzer import fuzz, read_again
from tests.fuzz.targets import TARGETS

KEPT = Path("runs") / "fuzz"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_spoilt_files_are_read_or_refused(
    target: str, tmp_path: Path, root: Path, pytestconfig: pytest.Config
) -> None:
    given = pytestconfig.getoption("--fuzz-input", None)
    if given is not None:
        path = Path(given)
        kind = path.name.split("-")[0]
        assert path.is_file() and kind in TARGETS, f"{path}: no file, or not called KIND-... as it was kept"
        if kind != target:
            pytest.skip(f"the input is of {kind}")
        again = read_again(target, tmp_path, path)
        assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
        return
    seconds = pytestconfig.getoption("--fuzz-seconds", SECONDS) / len(TARGETS)
    seed = pytestconfig.getoption("--fuzz-seed", 0)
    outcome = fuzz(target, tmp_path, root / KEPT, seed=seed, seconds=seconds)
    print(f"\n{target}: {outcome}")
    assert not outcome.faults, str(outcome)
    assert outcome.inputs >= 10
    assert any(verdict.startswith("refused") for verdict in outcome.counts), "nothing was spoilt"
