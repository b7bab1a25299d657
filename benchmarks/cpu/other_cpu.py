"""Run a benchmark's processes as a CPU with fewer instruction sets: see ``tests/other_cpus``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.other_cpus import PROFILES, build, environment
from tests.other_cpus.copies import copy_patched
from vmkla.ops.backends import native

OPENVINO_ASKS = ("libopenvino.so", "libopenvino_intel_cpu_plugin.so", "libtbb.so")
"""OpenVINO's libraries that choose their code by CPUID."""


@contextmanager
def kinds() -> Iterator[dict[str, Path | None]]:
    """Map each instruction set to measure to the folder of its patched libraries, None for this CPU's own."""
    own = native().instruction_set
    if own != "avx512" or not PROFILES["avx2"].runs_here():
        yield {own: None}
        return
    with tempfile.TemporaryDirectory(prefix="vmkla-cpu-") as folder:
        copies = build(Path(folder) / "copies")
        _copy_openvino(copies)
        yield {own: None, "avx2": copies}


@contextmanager
def children_as(kind: str, copies: Path | None) -> Iterator[None]:
    """Make the processes that ``apart`` starts run as this kind of CPU."""
    if copies is None:
        yield
        return
    before = dict(os.environ)
    os.environ.update(environment(kind, copies))
    sys.path.insert(0, str(copies))  # multiprocessing hands its own path on
    try:
        yield
    finally:
        sys.path.remove(str(copies))
        os.environ.clear()
        os.environ.update(before)


def _copy_openvino(folder: Path) -> None:
    """Link the package ``openvino`` and patch the libraries that read CPUID; takes about a minute."""
    spec = importlib.util.find_spec("openvino")
    if spec is None or spec.origin is None:
        return
    target = folder / "openvino"
    shutil.copytree(
        Path(spec.origin).parent,
        target,
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for library in sorted((target / "libs").iterdir()):
        if library.name.startswith(OPENVINO_ASKS):
            original = library.resolve()
            library.unlink()
            copy_patched(original, library)
