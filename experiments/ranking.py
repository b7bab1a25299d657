"""Rank variants; those whose seeds overlap share a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RULE = (
    "Rule of the ranks: a variant's interval reaches from its worst to its best seed. Variants whose "
    "intervals overlap, directly or through others, share a rank; a rank is better than the next only when "
    "every seed of every variant in it beats every seed of every variant below."
)


def ranks(scores: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Rank the variants, 1 the best; variants whose seeds overlap share a rank.

    Args:
        scores: of each variant one score per seed, higher is better.
    Raises:
        ValueError: a variant has no score.
    """
    empty = [name for name, values in scores.items() if not values]
    if empty:
        raise ValueError(f"no score for: {', '.join(empty)}")
    found: dict[str, int] = {}
    rank, lowest = 0, float("inf")
    for name in sorted(scores, key=lambda name: -max(scores[name])):
        if max(scores[name]) < lowest:
            rank += 1
        lowest = min(lowest, *scores[name])
        found[name] = rank
    return found


def late_share(losses: Sequence[float], last: float = 0.2) -> float:
    """Compute the share of a loss curve's fall that its last part brought; near 0 when it has flattened.

    Both ends are means over half of that part, so that one epoch's luck does not decide.

    Args:
        losses: one per epoch.
        last: the part, as a share of the epochs.
    Returns:
        0 to 1 for a falling curve; 1 when there are too few epochs to tell or the loss did not fall.
    """
    part = round(last * len(losses))
    half = part // 2
    if half < 1:
        return 1.0
    end = sum(losses[-half:]) / half
    before = sum(losses[-part - half : -part]) / half
    fall = losses[0] - end
    return (before - end) / fall if fall > 0 else 1.0
