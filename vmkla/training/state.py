"""The state of a run on disk: everything that the next step depends on, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vmkla.bounded import Archive
from vmkla.errors import BadInputError, UsageError
from vmkla.files import written_whole
from vmkla.training.config import MAY_CHANGE_ON_RESUME, TrainConfig

FORMAT = 2


def save_state(path: Path, state: dict[str, Any], config: TrainConfig) -> None:
    """Write a state. The file gets its name only when it is whole.

    Args:
        path: the file; the one of before is replaced.
        state: tensors and plain values.
        config: of the run, held against that of a resumed one.
    Raises:
        BadInputError: it cannot be written.
    """
    try:
        with written_whole(path, private=False) as file:
            torch.save({"format": FORMAT, "config": config.to_dict(), **state}, file)
    except RuntimeError as error:  # torch's own for a disk that is full
        raise BadInputError(f"{path} cannot be written: {error}") from error


def load_state(path: Path, config: TrainConfig) -> dict[str, Any]:
    """Read what ``save_state`` wrote.

    Raises:
        BadInputError: the file is missing or damaged.
        UsageError: it belongs to a run with another configuration.
    """
    if not path.is_file():
        raise BadInputError(
            f"{path} does not exist, so there is no run to go on with", hint="Run it without --resume."
        )
    try:
        with Archive(path) as archive:
            archive.check()  # torch does not
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        then: dict[str, Any] = dict(state["config"])
        if state["format"] != FORMAT:
            raise ValueError(f"layout {state['format']!r}, expected {FORMAT!r}")
    except Exception as error:  # torch.load raises a dozen kinds for a damaged file
        raise BadInputError(
            f"{path} is not a state that this version of vmkla wrote: {error}",
            hint="Begin a new run with the last whole weights: vmkla train --init best.safetensors --out DIR",
        ) from error
    now = config.to_dict()
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
            "the run to go on with was started with other settings:\n" + "\n".join(changed),
            hint="Repeat the settings of then, or start a new run in another folder.",
        )
    return state
