"""The process that augments images for a training process, see ``vmkla.data.augment_pool``."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from vmkla.data.augment import AugmentConfig, augment
from vmkla.data.shared import Layout, Pixels, attach_shared
from vmkla.errors import ErrorReport


@dataclass(frozen=True)
class Job:
    """What a worker works on.

    Attributes:
        set_fd, set_layout: the training images, read only.
        out_fd, out_layout: where augmented images are written.
        config: strengths of the augmentation, by name.
        seed: of the augmentation.
        soft: the masks are probabilities.
    """

    set_fd: int
    set_layout: Layout
    out_fd: int
    out_layout: Layout
    config: dict[str, float]
    seed: int
    soft: bool


class Task(NamedTuple):
    """Images to augment.

    Attributes:
        epoch: from 0.
        indices: of the training images.
        row: of the first augmented image; the others follow it.
    """

    epoch: int
    indices: tuple[int, ...]
    row: int


class Failure(NamedTuple):
    """The first image of a task that could not be augmented, by its index, and why."""

    image: int
    report: ErrorReport


def augmented(
    images_rgb: Pixels,
    masks: Pixels,
    index: int,
    *,
    epoch: int,
    size_hw: tuple[int, int],
    config: AugmentConfig,
    seed: int,
    soft: bool,
) -> tuple[Pixels, Pixels]:
    """Augment one image of a set. The result depends on nothing but the arguments.

    An index from the set's length on is another copy of an image, with random numbers of its own.

    Returns:
        (h, w, 3) uint8 and (h, w) uint8, see ``augment``.
    """
    rng = np.random.default_rng((seed, epoch, index))
    source = index % len(images_rgb)
    return augment(images_rgb[source], masks[source], size_hw, config, rng, soft=soft)


def serve(connection: Connection) -> None:
    """Augment until the other end of the connection is closed, also by the end of that process.

    Args:
        connection: gives the ``Job``, then ``Task``s; takes None or a ``Failure`` for each.
    """
    # The training process decides when to stop. It saves its state first, and may need more batches for it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        job: Job = connection.recv()
        images, masks = attach_shared(job.set_fd, job.set_layout, writable=False)
        out = attach_shared(job.out_fd, job.out_layout, writable=True)
        size_hw, config = (job.out_layout.height, job.out_layout.width), AugmentConfig(**job.config)
        while True:
            task: Task = connection.recv()
            failure = None
            for row, index in enumerate(task.indices, task.row):
                try:
                    out[0][row], out[1][row] = augmented(
                        images,
                        masks,
                        index,
                        epoch=task.epoch,
                        size_hw=size_hw,
                        config=config,
                        seed=job.seed,
                        soft=job.soft,
                    )
                except Exception as error:  # reported by the training process
                    failure = Failure(index, ErrorReport.of(error))
                    break
            connection.send(failure)
    except (EOFError, ConnectionError):
        return
