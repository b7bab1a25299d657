"""Which of a run's processes this one is. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmkla.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train a network together; by itself with the defaults.

    Attributes:
        rank: number of this process over all machines, from 0. Process 0 writes the files.
        local_rank: its number on this machine, from 0: the GPU that it takes.
        world: number of processes.
    """

    rank: int = 0
    local_rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ranks:
        """What torchrun's variables say; without them one process by itself.

        Args:
            environment: for instance ``os.environ``.
        Raises:
            UsageError: only some of the variables are there, or they make no sense.
        """
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        if not all(name in environment for name in ("TORCHELASTIC_RUN_ID", *names)):
            return cls()
        seen = {name: environment[name] for name in names}
        try:
            ranks = cls(*(int(value) for value in seen.values()))
        except ValueError:
            ranks = cls(rank=-1)
        if not (0 <= ranks.local_rank <= ranks.rank < ranks.world):
            raise UsageError(
                f"torchrun's variables make no sense: {seen}",
                hint="Start it with: torchrun --nproc-per-node N --no-python vmkla train ...",
            )
        return ranks

    def share(self, count: int) -> slice:
        """This process's part of ``count`` things in a row, which ``world`` divides."""
        part = count // self.world
        return slice(self.rank * part, (self.rank + 1) * part)
