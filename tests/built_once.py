"""Files that take seconds to make, made once in a test run, whichever of its processes asks first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

FOLDER = "VMKLA_TEST_BUILDS"
"""Environment variable: the folder of this run, which ``conftest.py`` makes and removes."""


def built_once(name: str, make: Callable[[Path], object]) -> Path:
    """Path of what ``make`` writes. The first process to ask makes it, others wait for it.

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
