"""Networks that fail on command, and readers of slots and rings, for the processes that tests start."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.metadata import ArtefactMetadata
from vmkla.runner import RunnerSpec
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import RingReader

HEALTHY, NAN, SHAPE, ABOVE_ONE, RAISE, HANG, SLOW, MEMORY, EXIT, DOUBLE = range(0, 100, 10)
"""What a frame with this value in every pixel makes the network do."""
SLOW_S = 0.4


class CommandedRunner:
    """The probability of a pixel is its red channel; frames of one value are commands.

    Args:
        self_test: of the metadata.
        batch: of the spec.
        classes: output channels, all with the red channel.
        drift: added to every probability, up to 1.
    """

    name = "commanded"

    def __init__(
        self,
        self_test: dict[str, Any] | None = None,
        batch: int | None = None,
        classes: int = 1,
        drift: float = 0.0,
    ) -> None:
        metadata = ArtefactMetadata(
            model_config={"name": "commanded"},
            class_names=tuple(f"class{index}" for index in range(classes)),
            threshold=0.5,
            operating_point=OperatingPoint(0.5),
            preprocess=PreprocessSpec(32, 48),
            weights_sha256="0" * 64,
            gates={"passed": True},
            self_test=self_test,
        )
        self.spec = RunnerSpec(
            height=32,
            width=48,
            batch=batch,
            num_classes=classes,
            metadata=metadata,
            path="commanded.onnx",
            sha256="1" * 64,
            runtime="numpy",
            device="cpu",
            kernels="native",
        )
        self._drift = np.float32(drift)

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        red = frames_rgb[..., 0].astype(np.float32) / 255  # (n, h, w)
        probability = np.repeat(red[:, np.newaxis], self.spec.num_classes, axis=1)
        probability = np.minimum(probability + self._drift, np.float32(1))
        command = int(frames_rgb.flat[0]) if np.ptp(frames_rgb) == 0 else HEALTHY
        return _obey(command, probability)

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


def _obey(command: int, probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if command == NAN:
        probability[..., 3, 4] = np.nan
    elif command == SHAPE:
        probability = probability[..., :-1]
    elif command == ABOVE_ONE:
        probability = probability + np.float32(1)
    elif command == RAISE:
        raise RuntimeError("device lost: /dev/nvidia0")
    elif command == HANG:
        time.sleep(3600)
    elif command == SLOW:
        time.sleep(SLOW_S)
    elif command == MEMORY:
        raise MemoryError
    elif command == EXIT:
        os._exit(3)
    elif command == DOUBLE:
        return probability.astype(np.float64)  # type: ignore[return-value]
    return probability


class DriftingRunner(CommandedRunner):
    """A runner that goes wrong while it runs: its drift is the text of a file, read at every frame."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._drift = np.float32(self._file.read_text(encoding="utf-8") or 0)
        return super().infer(frames_rgb)


def load_from(file: Path) -> CommandedRunner:
    """Load a runner whose drift is the text of a file; fails when the file is missing."""
    try:
        return CommandedRunner(drift=float(file.read_text(encoding="utf-8") or 0))
    except OSError as error:
        raise BadInputError(f"there is no model file {file}", hint="Fetch it again.") from error


def reply(questions: Board, answers: Board) -> None:
    """Answer each message up to ``end``."""
    while questions.wait(20):
        message = questions.read()
        if message is not None:
            answers.publish(b"to ", message)
            if message == b"end":
                return


def echo(reader: RingReader, answers: Board) -> None:
    """Read frames up to number 20 and publish their sums."""
    sums = []
    while not sums or sums[-1][0] < 20:
        if not reader.wait(20):
            break
        while (seen := reader.next()) is not None:
            sums.append((seen.sequence, int(seen.rgb.sum())))
    answers.publish(json.dumps([sums, reader.missed, reader.torn]).encode())
