"""The board: the newest message, whole, between two processes."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.commanded import reply
from vmkla.errors import VmklaError
from vmkla.video.live.shared_memory.board import Board


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_pieces_are_laid_one_after_another(pieces: list[bytes]) -> None:
    board = Board(2000)
    board.publish(*pieces)
    assert board.read() == b"".join(pieces)
    assert board.read() is None


def test_kinds_of_pieces() -> None:
    board = Board(100)
    board.publish(b"a", bytearray(b"b"), memoryview(b"c"), np.array([100, 101], np.uint8))
    assert board.read() == b"abcde"


def test_the_newest_wins() -> None:
    board = Board(100)
    assert board.read() is None and not board.wait(0)
    for number in range(30):
        board.publish(str(number).encode())
    assert board.wait(0) and board.read() == b"29"
    assert not board.wait(0.001)


def test_too_large() -> None:
    board = Board(10)
    board.publish(b"before")
    with pytest.raises(VmklaError, match="11 bytes were to be shared, expected at most 10"):
        board.publish(b"x" * 11)
    assert board.read() == b"before"


def test_torn_messages_are_counted_and_never_given() -> None:
    board = Board(10)
    board.publish(b"message")
    board._slots._content(1)[2] ^= np.uint8(32)
    assert board.read() is None and board.torn == 1
    board.publish(b"another")
    assert board.read() == b"another"


def test_there_and_back() -> None:
    questions, answers = Board(100), Board(100)
    questions.publish(b"a message of before")
    process = multiprocessing.get_context("spawn").Process(
        target=reply, args=(questions, answers), daemon=True
    )
    process.start()
    for message in (b"a message of before", b"and one more", b"end"):
        if message != b"a message of before":
            questions.publish(message)
        until = time.monotonic() + 30
        answer = None
        while answer is None and time.monotonic() < until:
            answers.wait(1)
            answer = answers.read()
        assert answer == b"to " + message
    process.join(20)
    assert process.exitcode == 0
    for board in (questions, answers):
        board.close()
        board.close()
