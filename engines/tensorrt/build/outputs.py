"""Checks of the files that a build writes: all different from those it reads, and writable."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmkla.engines.tensorrt.manifest import manifest_path
from vmkla.errors import BadInputError, UsageError

SUFFIX = ".plan"
"""File name extension of an engine."""


def check_output_name(output: Path) -> None:
    """Check that an engine's file name ends in ``SUFFIX``.

    Raises:
        UsageError: it does not, so that no command would recognise the engine.
    """
    if output.suffix != SUFFIX:
        raise UsageError(
            f"--output is {str(output)!r}, expected a file name that ends in {SUFFIX}",
            hint=f"For instance: --output {output.stem or 'model'}{SUFFIX}",
        )


def check_files(model: Path, output: Path, timing_cache: Path | None, plugin: Path | None) -> None:
    """Check that the files of a build are different files, and that its outputs can be written.

    Args:
        model: path of the ONNX file.
        output: path of the engine.
        timing_cache: path of the timing cache; None without one.
        plugin: path of the plugin library; None without one.
    Raises:
        UsageError: two of the paths are the same file, so that one would be lost.
        BadInputError: the engine, its manifest or the timing cache cannot be written.
    """
    written = {"--output": output, "the engine's manifest": manifest_path(output)}
    if timing_cache is not None:
        written["--timing-cache"] = timing_cache
    files = {"the model": model, **written}
    if plugin is not None:
        files["--plugin"] = plugin
    seen: dict[str, str] = {}
    for name, path in files.items():
        # A file that does not exist yet can only be compared by its real path.
        key = os.path.realpath(path)
        same = seen.get(key) or next((seen[other] for other in seen if _same_file(key, other)), None)
        if same is not None:
            raise UsageError(f"{same} and {name} are the same file {path}", hint="Give each its own name.")
        seen[key] = name
    for path in written.values():
        check_writable(path)


def check_writable(path: Path) -> None:
    """Check that a file can be written, by a temporary file beside it, before a build that takes minutes.

    Raises:
        BadInputError: it cannot be written.
    """
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise BadInputError(f"{path} is a folder, expected the name of a file to write")
    try:
        with (
            ensure_folder(path.parent, keep=False),
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."),
        ):
            pass
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def ensure_folder(folder: Path, *, keep: bool = True) -> Iterator[None]:
    """Make a folder and its parents for a block; remove those that were missing when it raises an error.

    Args:
        folder: path of the folder.
        keep: leave the folders in place when the block succeeds.
    Raises:
        OSError: the folder cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]  # deepest first
    kept = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        kept = keep
    finally:
        for each in [] if kept else missing:
            with contextlib.suppress(OSError):  # another process has written a file there
                each.rmdir()


def _same_file(a: str, b: str) -> bool:
    """Whether two paths are hard links of the same file; False where one does not exist yet."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
