"""The judge of a worker, on a clock of its own: when it is believed, doubted and given up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vmkla.errors import BadInputError
from vmkla.segment.findings import Findings
from vmkla.video.live.frame import AiState, LiveResult
from vmkla.video.live.network.pulse import Pulse
from vmkla.video.live.network.watch import Fault, SupervisorLimits, Watch

ON, OFF, STARTING = AiState.ON, AiState.OFF, AiState.STARTING
FRAME_S = 1 / 30


class Act:
    """A worker and a camera that do as told, and a clock that is moved by hand."""

    def __init__(self, before: tuple[AiState, str] = (STARTING, "loading")) -> None:
        self.now_s = 1000.0
        self.pulse = Pulse(at_s=self.now_s)
        self.newest: tuple[int, float] | None = None
        self.result: LiveResult | BadInputError | None = None
        self.dead: Fault | None = None
        self.asked: list[int] = []
        self.counts: Counter[str] = Counter()
        self.watch = Watch(
            self,
            lambda: self.newest,
            SupervisorLimits(),
            before=before,
            started_s=self.now_s,
            counts=self.counts,
        )

    def death(self) -> Fault | None:
        return self.dead

    def read_pulse(self) -> Pulse:
        return self.pulse

    def read_result(self) -> LiveResult | None:
        result, self.result = self.result, None
        if isinstance(result, BadInputError):
            raise result
        return result

    def ask_self_test(self, number: int) -> None:
        self.asked.append(number)

    def tick(self, seconds: float = 0.01, *, alive: bool = True) -> tuple[AiState, str] | Fault:
        """Time passes; gives the verdict or the fault."""
        self.now_s += seconds
        if alive:
            self.pulse = replace(self.pulse, at_s=self.now_s)
        return self.watch.tick(self.now_s) or self.watch.verdict

    def ready(self) -> None:
        self.pulse = replace(self.pulse, stage="ready", self_tests=0)

    def show(self) -> None:
        """A frame comes now."""
        self.newest = (1 if self.newest is None else self.newest[0] + 1, self.now_s)

    def answer(self, sequence: int | None = None, captured_s: float | None = None) -> None:
        """The worker's result for a frame; the newest, unless told otherwise."""
        assert self.newest is not None
        findings = Findings(np.zeros((4, 4), np.uint8))
        self.result = LiveResult(
            self.newest[0] if sequence is None else sequence,
            self.newest[1] if captured_s is None else captured_s,
            self.now_s,
            (4, 4),
            findings,
            {},
        )

    def work(self, frames: int, *, lag_s: float = 0.03) -> list[tuple[AiState, str] | Fault]:
        """A worker that needs ``lag_s`` for each of 30 frames a second; gives the verdict of each tick."""
        verdicts: list[tuple[AiState, str] | Fault] = []
        busy: tuple[int, float] | None = None
        end_s = self.now_s + frames * FRAME_S - 1e-9
        next_s = self.now_s
        while self.now_s < end_s:
            if self.now_s >= next_s:
                self.show()
                next_s += FRAME_S
            if busy is not None and self.now_s >= busy[1] + lag_s:
                self.answer(busy[0], self.times[busy[0]])
                busy = None
            if self.newest is not None:
                self.times[self.newest[0]] = self.newest[1]
                if busy is None and self.newest[0] > self.done:
                    busy, self.done = (self.newest[0], self.now_s), self.newest[0]
            verdicts.append(self.tick(0.005))
        return verdicts

    times: dict[int, float] = {}
    done = 0


@pytest.fixture
def act() -> Act:
    made = Act()
    made.times = {}
    return made


@pytest.fixture
def on(act: Act) -> Act:
    """A worker that is believed."""
    act.ready()
    assert act.work(10)[-1] == (ON, "")
    return act


def test_on_only_with_a_result(act: Act) -> None:
    assert act.tick() == (STARTING, "loading")
    act.ready()
    assert act.tick() == (STARTING, "no picture yet")
    act.show()
    assert act.tick() == (STARTING, "catching up")
    act.answer()
    assert act.tick() == (ON, "")
    assert act.watch.result is not None and act.counts["results"] == 1


def test_off_stays_off_until_the_first_result_of_a_restarted_worker() -> None:
    act = Act(before=(OFF, "worker was killed"))
    assert act.tick() == (OFF, "worker was killed")
    act.ready()
    act.show()
    assert act.tick() == (OFF, "catching up")
    act.answer()
    assert act.tick() == (ON, "")


def test_a_worker_that_keeps_up_stays_on(on: Act) -> None:
    assert set(on.work(300)) == {(ON, "")}


def test_too_slow_is_off_and_no_fault(on: Act) -> None:
    verdicts = on.work(60, lag_s=0.33)
    assert verdicts[0] == (ON, "") and not any(isinstance(verdict, Fault) for verdict in verdicts)
    assert verdicts[-1] == (OFF, "too slow")
    late = verdicts[len(verdicts) // 2 :]
    assert set(late) == {(OFF, "too slow")}
    verdicts = on.work(60)
    assert verdicts[-1] == (ON, "")
    changes = sum(first != second for first, second in zip(verdicts, verdicts[1:], strict=False))
    assert changes == 1 and verdicts.index((ON, "")) * 0.005 > 0.3  # settled first


def test_a_worker_that_is_just_not_fast_enough_does_not_flicker(on: Act) -> None:
    verdicts = on.work(150, lag_s=0.08)
    assert all(verdict in {(ON, ""), (OFF, "too slow")} for verdict in verdicts)
    changes = sum(first != second for first, second in zip(verdicts, verdicts[1:], strict=False))
    assert (OFF, "too slow") in verdicts and changes <= 2


def test_no_frames_are_not_the_workers_fault(on: Act) -> None:
    assert {on.tick() for _ in range(500)} == {(ON, "")}
    on.now_s += 0.01
    on.show()
    assert on.tick() == (OFF, "catching up")  # the frame that is shown now is covered by nothing yet
    on.answer()
    on.tick()
    assert on.work(30)[-1] == (ON, "")


def test_after_a_gap_the_first_covered_frame_is_believed_at_once(on: Act) -> None:
    """Also where the first inference takes long: only a network that is slow again settles first."""
    on.now_s += 60
    on.show()
    first_s = on.now_s
    for _ in range(6):
        assert on.tick(0.03) == (OFF, "catching up")
        on.show()
    on.answer(on.newest[0] - 5, first_s)  # after 0.18 s, when it is too old
    assert on.tick(0.001)[0] is OFF  # type: ignore[index]
    on.show()
    on.answer()
    assert on.tick(0.001) == (ON, "")


def test_death_is_given_at_once(on: Act) -> None:
    on.dead = Fault("worker was killed")
    assert on.tick() == Fault("worker was killed")


def test_last_word(on: Act) -> None:
    on.pulse = replace(
        on.pulse, stage="failed", cause="inference failed", message="lost", error="RuntimeError"
    )
    fault = on.tick()
    assert isinstance(fault, Fault)
    assert (fault.cause, fault.detail) == ("inference failed", "RuntimeError: lost")


def test_silence_is_doubted_and_a_self_test_ends_the_doubt(on: Act) -> None:
    assert on.tick(0.07, alive=False) == (ON, "")
    assert on.tick(0.02, alive=False) == (OFF, "worker does not answer")
    assert on.watch.result is None
    assert on.tick(0.5, alive=False) == (OFF, "worker does not answer") and on.asked == []
    assert on.tick() == (OFF, "self-test") and on.asked == [1]
    on.show()
    on.answer()
    assert on.tick() == (OFF, "self-test")
    assert on.counts["rejected: worker is doubted"] == 1 and on.watch.result is None
    on.pulse = replace(on.pulse, self_tests=1)
    on.show()
    assert on.tick() == (OFF, "catching up")
    on.show()
    on.answer()
    assert on.tick() == (ON, "")


def test_each_doubt_needs_a_self_test_of_its_own(on: Act) -> None:
    on.tick(0.1, alive=False)
    on.tick()
    on.tick(0.1, alive=False)
    on.pulse = replace(on.pulse, self_tests=1)  # the answer to the first one
    assert on.tick() == (OFF, "self-test") and on.asked == [1, 2]
    on.pulse = replace(on.pulse, self_tests=2)
    on.show()
    on.answer()
    on.tick()
    assert on.tick()[0] is ON  # type: ignore[index]


def test_long_silence_is_the_end(on: Act) -> None:
    on.tick(1.9, alive=False)
    fault = on.tick(0.2, alive=False)
    assert isinstance(fault, Fault) and fault.cause == "worker does not answer"


def test_a_self_test_that_never_ends(on: Act) -> None:
    on.tick(0.1, alive=False)
    verdicts = [on.tick(0.05) for _ in range(60)]
    assert verdicts[0] == (OFF, "self-test")
    assert isinstance(verdicts[-1], Fault) and verdicts[-1].cause == "self-test hangs"


def test_an_inference_that_never_ends(on: Act) -> None:
    on.pulse = replace(on.pulse, inferring_since_s=on.now_s)
    assert not isinstance(on.tick(1.9), Fault)
    fault = on.tick(0.2)
    assert isinstance(fault, Fault) and fault.cause == "inference hangs"


def test_an_inference_that_lasts_longer_than_they_do_is_off_before_its_last_result_is_old(on: Act) -> None:
    on.pulse = replace(on.pulse, inferring_since_s=on.now_s)
    assert on.tick(0.045) == (ON, "")
    assert on.tick(0.01) == (OFF, "no result in time")
    on.pulse = replace(on.pulse, inferring_since_s=None)
    assert on.tick(0.001) == (ON, "")


def test_a_network_that_always_takes_long_is_given_its_usual_time(act: Act) -> None:
    act.ready()
    for _ in range(30):
        act.show()
        act.answer()
        assert act.result is not None and not isinstance(act.result, BadInputError)
        act.result = replace(act.result, latency_ms={"inference": 30.0})
        assert act.tick() == (ON, "")
    act.pulse = replace(act.pulse, inferring_since_s=act.now_s)
    assert act.tick(0.08) == (ON, "")
    assert act.tick(0.02) == (OFF, "no result in time")


def test_loading_may_take_long_but_not_for_ever(act: Act) -> None:
    assert act.tick(9, alive=False) == (STARTING, "loading")  # holds up every thread of its process
    assert act.tick(1) == (STARTING, "loading")
    for _ in range(9):
        assert act.tick(5) == (STARTING, "loading")
    fault = act.tick(6)
    assert isinstance(fault, Fault) and fault.cause == "worker does not start"


def test_a_start_that_is_stopped(act: Act) -> None:
    fault = act.tick(11, alive=False)
    assert isinstance(fault, Fault) and fault.cause == "worker does not start"


@pytest.mark.parametrize(
    ("sequence", "ahead_s", "finished_s", "words"),
    [
        (99, 0.0, 0.0, "not there yet"),
        (None, 1.0, 0.0, "not there yet"),
        (1, 0.0, 0.0, "after"),
        (None, 0.0, 1.0, "ahead"),
    ],
)
def test_results_that_cannot_be(
    on: Act, sequence: int | None, ahead_s: float, finished_s: float, words: str
) -> None:
    on.show()
    on.answer(sequence, on.now_s + ahead_s)
    assert isinstance(on.result, LiveResult)
    on.result = replace(on.result, finished_s=on.now_s + finished_s)
    fault = on.tick(0.001)
    assert isinstance(fault, Fault) and fault.cause == "result makes no sense" and words in fault.detail


def test_a_torn_result(on: Act) -> None:
    on.result = BadInputError("a result did not arrive whole")
    assert on.tick() == Fault("result makes no sense", "a result did not arrive whole")
