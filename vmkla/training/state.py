"""The state of a run on disk: everything that the next step depends on, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from vmkla.bounded import Archive
from vmkla.errors import BadInputError, UsageError
from vmkla.files import written_whole
from vmkla.training.config import MAY_CHANGE_ON_RESUME, TrainConfig

FORMAT = 2


def save_state(path: Path, state: dict[str, Any], config: TrainConfig) -> None:
    """Write a state. The file gets its name only when it is whole.

    Args:
        path: the file; an earlier one is replaced.
        state: tensors and plain values.
        config: of the run, compared with that of a resumed one.
    Raises:
        BadInputError: it cannot be written.
    """
    with written_whole(path, private=False) as file:
        kept = _FirstError(file)
        try:
            torch.save({"format": FORMAT, "config": config.to_dict(), **state}, cast(BinaryIO, kept))
        except RuntimeError:  # torch's own for whatever the file raised
            if kept.error is None:
                raise
            raise kept.error from None


class _FirstError:
    """A file that keeps its first error: torch replaces it by one that does not name the full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def load_state(path: Path, config: TrainConfig) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        BadInputError: the file is missing or damaged.
        UsageError: it belongs to a run with another configuration, or to one with more epochs.
    """
    if not path.is_file():
        raise BadInputError(
            f"{path} does not exist, so there is no run to resume", hint="Run it without --resume."
        )
    try:
        with Archive(path) as archive:
            archive.check()  # torch does not
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        then: dict[str, Any] = dict(state["config"])
        done = int(state["progress"]["epoch"])
        if state["format"] != FORMAT:
            raise ValueError(f"layout {state['format']!r}, expected {FORMAT!r}")
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        raise BadInputError(
            f"{path} is not a state that this version of vmkla wrote: {error}",
            hint="Begin a new run with the last whole weights: vmkla train --init best.safetensors --out DIR",
        ) from error
    now = config.to_dict()
    then = {**TrainConfig(out_dir=config.out_dir).to_dict(), **then}  # settings that are newer than the run
    may_change = set(MAY_CHANGE_ON_RESUME)
    if config.t_max_epochs == 0:
        may_change.remove("epochs")  # the cosine reaches over all of them
    changed = [
        f"  {name}: {then.get(name)!r} then, {now[name]!r} now"
        for name in now
        if name not in may_change and then.get(name) != now[name]
    ]
    if changed:
        raise UsageError(
            "the run to resume was started with other settings:\n" + "\n".join(changed),
            hint="Repeat the settings of then, or start a new run in another folder.",
        )
    if done > config.epochs:
        raise UsageError(
            f"there is nothing to do: the run in {path.parent} has finished {done} epochs, "
            f"and {config.epochs} are asked for",
            hint=f"Give more with --epochs, or use its weights: {path.parent / 'best.safetensors'}",
        )
    return state
