"""Limit the rate of answers, and the wait of each request."""

from __future__ import annotations

import asyncio


class RateLimit:
    """Lets callers pass in order of arrival, at a limited rate.

    A caller that is cancelled or has waited too long leaves the queue without using up a turn.

    Args:
        per_s: callers a second.
        burst: number of callers that may pass at once after a pause.
        wait_s: longest wait of a caller, seconds.
    """

    def __init__(self, per_s: float, *, burst: int, wait_s: float) -> None:
        self._step_s = 1 / per_s
        self._rest_s = burst / per_s
        self._wait_s = wait_s
        self._free_s = float("-inf")
        self._queue = asyncio.Lock()  # first come, first served

    async def turn(self) -> bool:
        """Wait for this caller's turn; return False when it did not come in time."""
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
