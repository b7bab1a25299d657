"""Search for the fewest groups that must stay in higher precision, the most sensitive ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Verdict(Protocol):
    """Verdict of the gates on a candidate."""

    @property
    def passed(self) -> bool:
        """Whether every gate passes."""

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each gate that fails."""


V = TypeVar("V", bound=Verdict)


@dataclass(frozen=True)
class PutBack:
    """A group that stays in higher precision.

    Attributes:
        group: name of the group.
        because: what failed while the group was quantized.
    """

    group: str
    because: tuple[str, ...]


@dataclass(frozen=True)
class Found(Generic[V]):
    """Result of a search.

    Attributes:
        put_back: groups in the order in which they were put back.
        verdict: verdict on the last candidate.
        tried: number of candidates.
    """

    put_back: tuple[PutBack, ...]
    verdict: V
    tried: int


def search(
    ranked: Callable[[], Sequence[str]], groups: int, judge: Callable[[frozenset[str]], V]
) -> Found[V]:
    """Put groups back, the most sensitive first, until a candidate passes.

    Args:
        ranked: returns the names of the groups, most sensitive first; called only when the candidate with all
            groups quantized fails.
        groups: number of groups.
        judge: makes a candidate in which these groups are not quantized, and checks it against the gates.
    Returns:
        The first candidate that passes; when none does, the last one with a quantized group. A candidate
        without quantized groups is not judged.
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
