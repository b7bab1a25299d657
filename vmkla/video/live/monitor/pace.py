"""How many requests a second are answered, and how long one of them may wait."""

from __future__ import annotations

import asyncio


class Pace:
    """Let callers through in the order they came, at most so many a second.

    A caller that is cancelled or has waited too long leaves the queue and takes nothing from the others.

    Args:
        per_s: the rate.
        burst: how many may pass at once after a rest.
        wait_s: the longest that a caller waits.
    """

    def __init__(self, per_s: float, *, burst: int, wait_s: float) -> None:
        self._step_s = 1 / per_s
        self._rest_s = burst / per_s
        self._wait_s = wait_s
        self._free_s = float("-inf")
        self._queue = asyncio.Lock()  # first come, first served

    async def turn(self) -> bool:
        """Wait for this caller's turn; False when it did not come in time."""
        try:
            await asyncio.wait_for(self._pass(), self._wait_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def _pass(self) -> None:
        async with self._queue:
            now_s = asyncio.get_running_loop().time()
            free_s = max(self._free_s + self._step_s, now_s - self._rest_s)
            if free_s > now_s:
                await asyncio.sleep(free_s - now_s)
            self._free_s = free_s
