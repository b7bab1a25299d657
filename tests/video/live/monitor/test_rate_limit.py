"""The queue of a rate limit is first come, first served, bounded in time, and forgets those who left."""

from __future__ import annotations

import asyncio
import time

import pytest

from vmkla.video.live.monitor.rate_limit import RateLimit


@pytest.mark.quiet
def test_a_rest_allows_a_burst_and_then_the_rate_holds() -> None:
    async def check() -> None:
        limit = RateLimit(50, burst=5, wait_s=5)
        begun_s = time.monotonic()
        assert all([await limit.turn() for _ in range(5)])
        assert time.monotonic() - begun_s < 0.1
        order: list[int] = []

        async def one(number: int) -> None:
            assert await limit.turn()
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(15)))
        assert order == list(range(15))
        assert time.monotonic() - begun_s >= 14 / 50

    asyncio.run(check())


@pytest.mark.quiet
def test_nobody_waits_longer_than_allowed() -> None:
    async def check() -> None:
        limit = RateLimit(10, burst=1, wait_s=0.35)
        begun_s = time.monotonic()
        turns = await asyncio.gather(*(limit.turn() for _ in range(40)))
        took_s = time.monotonic() - begun_s
        # One or two at once, then one each 0.1 s; all others are sent away.
        assert 3 <= sum(turns) <= 6 and turns == sorted(turns, reverse=True)
        assert took_s < 1.5
        begun_s = time.monotonic()
        assert await limit.turn() and time.monotonic() - begun_s < 0.3, "those sent away left no debt"

    asyncio.run(check())


def test_those_who_left_are_forgotten() -> None:
    async def check() -> None:
        limit = RateLimit(5, burst=1, wait_s=60)
        waiting = [asyncio.ensure_future(limit.turn()) for _ in range(200)]
        await asyncio.sleep(0.05)
        for caller in waiting:
            caller.cancel()
        begun_s = time.monotonic()
        assert await limit.turn()
        assert time.monotonic() - begun_s < 2, "40 s before they were forgotten"

    asyncio.run(check())
