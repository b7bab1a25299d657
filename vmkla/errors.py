"""The one exception family. Each class carries the exit status that the command line ends with."""

from __future__ import annotations

from typing import NamedTuple


class VmklaError(Exception):
    """Base of every error that vmkla raises on purpose.

    Args:
        message: what was seen and what was expected.
        hint: the command or change that mends it, shown on a line of its own.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UsageError(VmklaError):
    """A flag or argument has a value that makes no sense."""

    exit_status = 2


class BadInputError(VmklaError):
    """Input data is missing, unreadable, or not what was asked for."""

    exit_status = 3


class ShapeError(BadInputError, ValueError):
    """Tensor shapes do not fit together, or do not fit the network."""


class MissingDependencyError(VmklaError):
    """A package or a piece of hardware that this step needs is absent."""

    exit_status = 4


class GateError(VmklaError):
    """An artefact was made and measured, and falls short of a gate."""

    exit_status = 5


class ArtefactMismatchError(VmklaError):
    """An artefact does not belong to this machine, this version, or to vmkla at all."""

    exit_status = 6


class DegradedError(VmklaError):
    """The work finished, but not whole: a cut-off video, frames lost."""

    exit_status = 7


class StoppedError(VmklaError):
    """A signal ended the run; outputs were closed properly.

    Args:
        signum: the signal's number; the exit status is 128 + signum.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = 128 + signum


class ErrorReport(NamedTuple):
    """What an error reports, in a form that can go from one process to another.

    Attributes:
        message: what was seen and expected; of a foreign error its type as well.
        hint: see ``VmklaError``.
        exit_status: that the command line ends with.
    """

    message: str
    hint: str | None
    exit_status: int

    @classmethod
    def of(cls, error: BaseException) -> ErrorReport:
        """The report of an error."""
        if isinstance(error, VmklaError):
            return cls(error.message, error.hint, error.exit_status)
        return cls(f"{type(error).__name__}: {error}", None, VmklaError.exit_status)

    def error(self, what: str) -> VmklaError:
        """An error with the same hint and exit status, whose message begins with ``what``."""
        found = VmklaError(f"{what}: {self.message}", hint=self.hint)
        found.exit_status = self.exit_status
        return found
