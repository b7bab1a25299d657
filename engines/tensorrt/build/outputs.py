"""The files that a build writes: none of those that it reads, and known to be writable before it begins."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmkla.engines.tensorrt.manifest import manifest_path
from vmkla.errors import BadInputError, UsageError

SUFFIX = ".plan"
"""By it every command knows an engine."""


def check_output_name(output: Path) -> None:
    """Raises UsageError for a name that no command would take for an engine."""
    if output.suffix != SUFFIX:
        raise UsageError(
            f"--output is {str(output)!r}, expected a file name that ends in {SUFFIX}",
            hint=f"For instance: --output {output.stem or 'model'}{SUFFIX}",
        )


def check_files(model: Path, output: Path, timing_cache: Path | None, plugin: Path | None) -> None:
    """No file of a build is another one's, and those that it writes can be written.

    Args:
        model: the ONNX file.
        output: the engine; its name is checked.
        timing_cache, plugin: as they were asked for.
    Raises:
        UsageError: two of them are one file, and one would be lost.
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
        # A name under which nothing is yet can be compared by its real path alone.
        key = os.path.realpath(path)
        same = seen.get(key) or next((seen[other] for other in seen if _same_file(key, other)), None)
        if same is not None:
            raise UsageError(f"{same} and {name} are the same file {path}", hint="Give each its own name.")
        seen[key] = name
    for path in written.values():
        check_writable(path)


def check_writable(path: Path) -> None:
    """Try to write beside a file's name, since a build takes minutes. Nothing stays of the attempt.

    Raises:
        BadInputError: nothing can be written there.
    """
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise BadInputError(f"{path} is a folder, expected the name of a file to write")
    try:
        with (
            folder_made(path.parent, keep=False),
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."),
        ):
            pass
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def folder_made(folder: Path, *, keep: bool = True) -> Iterator[None]:
    """Make a folder and its parents; those that were missing go again when the block ends with an error.

    Args:
        folder: to be there inside the block.
        keep: leave it there behind the block.
    Raises:
        OSError: it cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]  # deepest first
    kept = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        kept = keep
    finally:
        for each in [] if kept else missing:
            with contextlib.suppress(OSError):  # somebody else has put something there
                each.rmdir()


def _same_file(a: str, b: str) -> bool:
    """Two names of one file, by a hard link; False where one is no file yet."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
