"""Find the compiled libraries."""

from __future__ import annotations

from pathlib import Path

import vmkla
from vmkla.errors import MissingDependencyError

CPU_LIBRARY = "libvmkla_cpu.so"


def find_library(name: str = CPU_LIBRARY) -> Path:
    """Find a compiled library that the wheel installed under ``vmkla/lib``.

    Raises:
        MissingDependencyError: the library is missing.
    """
    # An editable install has the Python sources and the compiled files in two folders.
    folders = [Path(folder) / "lib" for folder in vmkla.__path__]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(folder) for folder in folders)
    raise MissingDependencyError(
        f"the compiled library {name} was not found; looked in {looked}",
        hint="Run: pip install --force-reinstall vmkla   (from a checkout: pip install .)",
    )
