"""Which groups stay in higher precision: the most sensitive ones, as few as the gates allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Verdict(Protocol):
    """Of a candidate."""

    @property
    def passed(self) -> bool:
        """Every gate held."""

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each that did not."""


V = TypeVar("V", bound=Verdict)


@dataclass(frozen=True)
class PutBack:
    """A group that stays in higher precision.

    Attributes:
        group: its name.
        because: what failed while it was quantized.
    """

    group: str
    because: tuple[str, ...]


@dataclass(frozen=True)
class Found(Generic[V]):
    """Outcome of a search.

    Attributes:
        put_back: in the order in which it happened.
        verdict: of the last candidate.
        tried: candidates.
    """

    put_back: tuple[PutBack, ...]
    verdict: V
    tried: int


def search(
    ranked: Callable[[], Sequence[str]], groups: int, judge: Callable[[frozenset[str]], V]
) -> Found[V]:
    """Put groups back, the most sensitive first, until a candidate passes.

    Args:
        ranked: names of the groups, most sensitive first; asked for only when everything quantized fails.
        groups: how many there are.
        judge: builds a candidate in which these groups are not quantized, and holds it against the gates.
    Returns:
        The first candidate that passes; when none does, the last one with a group quantized. Nothing is left
        to judge once every group is back.
    """
    put_back: list[PutBack] = []
    verdict = judge(frozenset())
    tried = 1
    order: Sequence[str] = ()
    while not verdict.passed and len(put_back) < groups - 1:
        order = order or ranked()
        put_back.append(PutBack(order[len(put_back)], verdict.failures))
        verdict = judge(frozenset(back.group for back in put_back))
        tried += 1
    return Found(tuple(put_back), verdict, tried)
