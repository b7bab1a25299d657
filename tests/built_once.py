"""Make files that take seconds once per test run, for all of its processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

FOLDER = "VMKLA_TEST_BUILDS"
"""Environment variable: the folder of this run, which ``conftest.py`` makes and removes."""


def built_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the path of what ``make`` writes; the first process to ask makes it, and others wait.

    Args:
        name: name of the file or folder, one for each content.
        make: writes it to the path that it is given.
    """
    path = Path(os.environ[FOLDER], name)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            partial = path.with_name(f"part-{name}")  # with its suffix
            make(partial)
            partial.rename(path)
    return path
