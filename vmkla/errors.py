"""Errors of vmkla, each with the exit status of the command line."""

from __future__ import annotations

import signal
from typing import Literal, NamedTuple

Outcome = Literal["done", "degraded", "interrupted", "failed"]
"""How a run ended, as its report states it."""


class VmklaError(Exception):
    """Base of every error that vmkla raises on purpose.

    Args:
        message: what was seen and what was expected.
        hint: the command or change that fixes it, printed on its own line.
    """

    exit_status = 1
    outcome: Outcome = "failed"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class UsageError(VmklaError):
    """A flag or argument has a value that makes no sense."""

    exit_status = 2


class BadInputError(VmklaError):
    """Input data is missing, unreadable, or not of the requested kind."""

    exit_status = 3


class ShapeError(BadInputError, ValueError):
    """Shapes of arrays do not fit each other or the network."""


class MissingDependencyError(VmklaError):
    """A package or a device that this step needs is missing."""

    exit_status = 4


class GateError(VmklaError):
    """A check of an artefact fails."""

    exit_status = 5


class ArtefactMismatchError(VmklaError):
    """An artefact was not made for this machine or this version, or not by vmkla."""

    exit_status = 6


class DegradedError(VmklaError):
    """The work finished, but its results are incomplete: a cut-off video, lost frames."""

    exit_status = 7
    outcome = "degraded"


class StoppedError(VmklaError):
    """A signal stopped the run; its outputs were closed properly.

    Args:
        signum: the signal's number; the exit status is 128 + signum.
    """

    outcome = "interrupted"

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = 128 + signum


class ErrorReport(NamedTuple):
    """What an error, or a run that ended, reports; it can be sent to another process.

    Attributes:
        message: what was seen and what was expected, after the type for an error that is not vmkla's; empty
            when all went well.
        hint: the command or change that fixes it, or None.
        exit_status: exit status of the command line.
        outcome: how a run with this error ended.
    """

    message: str
    hint: str | None
    exit_status: int
    outcome: Outcome = "failed"

    @classmethod
    def of(cls, error: BaseException) -> ErrorReport:
        """Describe an error: the one place that maps errors to exit statuses and outcomes."""
        if isinstance(error, VmklaError):
            return cls(error.message, error.hint, error.exit_status, error.outcome)
        if isinstance(error, KeyboardInterrupt):
            return cls("stopped by Ctrl-C", None, 128 + signal.SIGINT, StoppedError.outcome)
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            return cls("stopped before its end", None, error.code, StoppedError.outcome)
        return cls(
            f"{type(error).__name__}: {str(error).strip() or 'no message'}", None, VmklaError.exit_status
        )

    @classmethod
    def of_run(
        cls, error: BaseException | None, *, signum: int | None, stopped: str, missing: str
    ) -> ErrorReport:
        """Describe how a run ended; the first cause that holds is the one that counts.

        Args:
            error: what ended it, or None.
            signum: number of the signal that stopped it, or None.
            stopped: message of a run that was stopped in good order; empty when it was not.
            missing: what the results lack; empty when they are whole.
        """
        if error is not None:
            return cls.of(error)
        if stopped:
            return cls.of(StoppedError(signum or signal.SIGINT, stopped))
        return cls.of(DegradedError(missing)) if missing else cls("", None, 0, "done")

    def error(self, what: str = "") -> VmklaError:
        """Make an error with the same hint and exit status.

        Args:
            what: put before the message.
        """
        found = VmklaError(f"{what}: {self.message}" if what else self.message, hint=self.hint)
        found.exit_status = self.exit_status
        return found
