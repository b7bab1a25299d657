"""Frames of a scripted procedure, for a network that finds what is red."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

RATE = 10


def procedure() -> list[npt.NDArray[np.uint8]]:
    """Eight seconds: one lesion that is hidden for three of them, and one from 4 s to 5 s."""
    noise = np.random.default_rng(0).normal(0, 1, (96, 128, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    wall = np.clip(60 + 12 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    frames = []
    for index in range(8 * RATE):
        frame = wall.copy()
        if not 2 * RATE <= index < 5 * RATE:
            cv2.circle(frame, (40, 48), 14, (240, 60, 60), -1)
        if 4 * RATE <= index < 5 * RATE:
            cv2.circle(frame, (100, 60), 10, (240, 60, 60), -1)
        frames.append(frame)
    return frames
