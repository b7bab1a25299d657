"""The shard of a batch, from the command line or from a scheduler's variables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vmkla.errors import UsageError

_SHARD = re.compile(r"(?:(\d{1,9})/)?(\d{1,9})")


def parse_shard(text: str | None, environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Return number and count of the shard: ``"I/N"``, or ``"N"`` with the number from the environment.

    Without a text, those of a Slurm array are taken. None stands for all entries.

    Raises:
        UsageError: the text is neither, or a number is missing.
    """
    task, task_count = environment.get("SLURM_ARRAY_TASK_ID"), environment.get("SLURM_ARRAY_TASK_COUNT")
    completion = environment.get("JOB_COMPLETION_INDEX")
    index = None
    if task is not None and task.isdecimal():
        first, step = (environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("MIN", "STEP"))
        index = (int(task) - int(first if first.isdecimal() else 0)) // max(
            1, int(step if step.isdecimal() else 1)
        )
    elif completion is not None and completion.isdecimal():
        index = int(completion)
    if text is None:
        if index is None:
            return None
        if task is not None and task_count is not None and task_count.isdecimal():
            return index, int(task_count)
        raise UsageError(
            f"this is number {index} of an array, and the number of all is not in the environment",
            hint="Give the number of completions: --shard N; for all of the archive: --shard 0/1",
        )
    match = _SHARD.fullmatch(text.strip())
    if match is None or int(match[2]) == 0:
        raise UsageError(f"--shard is {text!r}, expected I/N or N", hint="For instance: --shard 0/4")
    if match[1] is not None:
        return int(match[1]), int(match[2])
    if index is None:
        raise UsageError(
            f"--shard is {text}, and neither JOB_COMPLETION_INDEX nor SLURM_ARRAY_TASK_ID states which one",
            hint=f"Give both: --shard 0/{text} to --shard {int(text) - 1}/{text}",
        )
    return index, int(match[2])
