"""vmkla.video.cancellation: signals stop a run in good order."""

from __future__ import annotations

import os
import signal

import pytest

from vmkla.video.cancellation import stop_on_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_the_handlers_come_back(signum: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals() as cancel:
        assert not cancel.is_set()
        os.kill(os.getpid(), signum)
        assert cancel.wait(5) and cancel.signum == signum
        # The second one acts as before, so that an impatient user gets out.
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
