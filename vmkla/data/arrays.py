"""Labelled images in memory at the network's size, and the batches that training takes from them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.cpus import cpu_budget
from vmkla.data.augment import AugmentConfig
from vmkla.data.augment_pool import AugmentPool
from vmkla.data.augment_worker import augmented
from vmkla.data.draws import Draws, Rows
from vmkla.data.sources import Sample
from vmkla.data.windows import WINDOW
from vmkla.errors import BadInputError, ErrorReport
from vmkla.segment.preprocess import PreprocessSpec, prepare_mask, view

CROP_MARGIN = 1.25
"""Images that will be warped are kept this much larger than the network's input, for detail."""


@dataclass(frozen=True)
class LabelledArrays:
    """Labelled images of one size: a whole set, or the batch of a step.

    Attributes:
        names: one per image.
        images_rgb: (n, h, w, 3) uint8.
        masks: (n, h, w) uint8, class indices; 0 is the background.
        soft: the masks are probabilities of one class instead, 0 to 255.
    """

    names: tuple[str, ...]
    images_rgb: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    soft: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def quiet(self) -> npt.NDArray[np.bool_]:
        """(n,) the images in which no pixel is a lesion, or probably one."""
        least = 128 if self.soft else 1
        return np.array([mask.max(initial=0) < least for mask in self.masks], bool)

    @property
    def windows(self) -> int:
        """How many of the images are polyp-free windows of others."""
        return sum(name.endswith(WINDOW) for name in self.names)


def prepared_pair(
    sample: Sample, spec: PreprocessSpec
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """An image and its mask as the network sees them.

    Returns:
        (h, w, 3) uint8 RGB, the very pixels that ``infer`` gives the network, and (h, w) uint8, class
        indices: a pixel is polyp when half of it or more is. A packed image is at that size already.
    Raises:
        BadInputError: the image was packed for another size or field of view.
    """
    if sample.prepared is not None:
        if sample.prepared != spec:
            raise BadInputError(
                f"{sample.name} was packed at {_said(sample.prepared)}, and is wanted at {_said(spec)}",
                hint="Pack the set again for this run: vmkla data pack, with its --imgsz, --roi and "
                "--margin (1 where the augmentation moves no pixels)",
            )
        return sample.image_rgb, sample.mask
    seen = view(sample.image_rgb, spec)
    return seen.pixels_rgb, prepare_mask(sample.mask, spec, seen.rect)


def _said(spec: PreprocessSpec) -> str:
    return f"{spec.height}x{spec.width} (height x width), roi {spec.roi}"


def stack(samples: Iterable[Sample], spec: PreprocessSpec) -> LabelledArrays:
    """Prepare samples and keep them.

    Raises:
        BadInputError: there is none.
    """
    names: list[str] = []
    images: list[npt.NDArray[np.uint8]] = []
    masks: list[npt.NDArray[np.uint8]] = []
    for sample in samples:
        image, mask = prepared_pair(sample, spec)
        names.append(sample.name)
        images.append(image)
        masks.append(mask)
    if not names:
        raise BadInputError("there is no labelled image", hint="Give a folder with images/ and masks/.")
    return LabelledArrays(tuple(names), np.stack(images), np.stack(masks))


def cache_spec(size_hw: tuple[int, int], roi: str, config: AugmentConfig) -> PreprocessSpec:
    """Size at which training images are kept: the network's own, with a margin when they will be warped."""
    margin = CROP_MARGIN if config.geometric else 1.0
    return PreprocessSpec(round(size_hw[0] * margin), round(size_hw[1] * margin), roi)


MOST_WORKERS = 16
"""One augments 730 images of 256x256 a second with every kind of change, 1450 with the paper's (AMD EPYC)."""


def loader_workers(device: str, processes: int = 1) -> int:
    """Return how many processes augment for a training process by default.

    None on a CPU, which the network needs itself. A machine with a GPU gives the CPUs of its budget but one.

    Args:
        device: kind of device that trains, ``"cpu"`` or ``"cuda"``.
        processes: training processes, which share the machine's CPUs.
    """
    return 0 if device == "cpu" else max(1, min(MOST_WORKERS, cpu_budget().cpus // processes - 1))


class TrainLoader:
    """Augmented batches in a random order, made in the background, a few ahead of the training.

    Order and augmentation depend on nothing but (seed, epoch, index), so a run that is cut off in the
    middle of an epoch continues with the batches that it would have had.

    Args:
        arrays: the training images; ``cache_spec`` gives their size.
        batch_size: images per batch; what is left over at the end of an epoch is left out.
        size_hw: size of the batches' images, px.
        config: strengths of the augmentation.
        seed: of order and augmentation.
        quiet_share: of every batch, the images without a lesion, see ``Draws``.
        ahead: batches made in advance.
        part: of every batch, the images that are made; one of several processes makes its own alone.
        workers: processes that augment, see ``AugmentPool``; 0 augments in a thread of this process. The
            batches are the same. With workers the loader must be closed.
    Raises:
        BadInputError: there are too few images for a batch, or for the quiet share.
        UsageError: the quiet share is less than one image of a batch, or all of it.
        VmklaError: a worker cannot be started, or has ended; or an image cannot be augmented.
    """

    def __init__(
        self,
        arrays: LabelledArrays,
        *,
        batch_size: int,
        size_hw: tuple[int, int],
        config: AugmentConfig,
        seed: int,
        quiet_share: float = 0.0,
        ahead: int = 2,
        part: slice = slice(None),
        workers: int = 0,
    ) -> None:
        self.draws = Draws(
            arrays.quiet, batch_size=batch_size, seed=seed, share=quiet_share, windows=arrays.windows
        )
        self.arrays = arrays
        self.size_hw = size_hw
        self.config = config
        self.seed = seed
        self.ahead = ahead
        self.part = part
        self._pool: AugmentPool | None = None
        if workers:
            self._pool = AugmentPool(
                arrays.names,
                arrays.images_rgb,
                arrays.masks,
                batch_size=len(range(batch_size)[part]),
                size_hw=size_hw,
                config=config,
                seed=seed,
                soft=arrays.soft,
                workers=workers,
            )
            # The same images: one copy of the set is enough.
            self.arrays = dataclasses.replace(
                arrays, images_rgb=self._pool.images_rgb, masks=self._pool.masks
            )

    def close(self) -> None:
        """End the workers; a second call does nothing."""
        if self._pool is not None:
            self._pool.close()

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return self.draws.steps

    def rows(self, epoch: int) -> list[Rows]:
        """The images that this process makes of each batch of an epoch, see ``Draws.batches``."""
        return [rows[self.part] for rows in self.draws.batches(epoch)]

    def batch(self, epoch: int, indices: Sequence[int] | npt.NDArray[np.int64]) -> LabelledArrays:
        """Augment the images of these rows as this epoch does, in this thread."""
        images = np.empty((len(indices), *self.size_hw, 3), np.uint8)
        masks = np.empty((len(indices), *self.size_hw), np.uint8)
        for row, index in enumerate(map(int, indices)):
            try:
                images[row], masks[row] = augmented(
                    self.arrays.images_rgb,
                    self.arrays.masks,
                    index,
                    epoch=epoch,
                    size_hw=self.size_hw,
                    config=self.config,
                    seed=self.seed,
                    soft=self.arrays.soft,
                )
            except Exception as error:
                what = f"{self._names([index])[0]} could not be augmented"
                raise ErrorReport.of(error).error(what) from error
        return LabelledArrays(self._names(indices), images, masks, self.arrays.soft)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[LabelledArrays]:
        """Batches of one epoch.

        Args:
            epoch: from 0.
            first_step: batches to leave out, because an earlier part of the run took them.
        """
        chunks = self.rows(epoch)[first_step:]
        if self._pool is None:
            return _made_ahead((self.batch(epoch, chunk) for chunk in chunks), self.ahead)
        return _made_ahead(self._from_pool(self._pool, epoch, chunks), self.ahead, self._pool.cancel)

    def _from_pool(
        self, pool: AugmentPool, epoch: int, chunks: Sequence[npt.NDArray[np.int64]]
    ) -> Generator[LabelledArrays, None, None]:
        with contextlib.closing(pool.batches(epoch, chunks)) as made:
            for chunk, (images, masks) in zip(chunks, made, strict=False):  # a cancelled pool ends early
                yield LabelledArrays(self._names(chunk), images, masks, self.arrays.soft)

    def _names(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.arrays.names[index % len(self.arrays)] for index in indices)


def _made_ahead(
    batches: Generator[LabelledArrays, None, None], ahead: int, cancel: Callable[[], None] = lambda: None
) -> Iterator[LabelledArrays]:
    """Run a generator in a thread, ``ahead`` items early; its exception is raised here.

    Args:
        batches: it is closed in that thread.
        ahead: how many of its items may wait.
        cancel: called when no more are wanted, so that the generator does not wait for its next item.
    """
    ready: queue.Queue[LabelledArrays | BaseException | None] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: LabelledArrays | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            with contextlib.closing(batches):
                for batch in batches:
                    if not put(batch):
                        return
            put(None)
        except BaseException as error:  # handed over, and raised by the reader
            put(error)

    thread = threading.Thread(target=work, name="vmkla-train-loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        cancel()
        thread.join()


def in_batches(arrays: LabelledArrays, batch_size: int) -> Iterator[LabelledArrays]:
    """All images in order, the last batch smaller where it must be."""
    for start in range(0, len(arrays), batch_size):
        rows = slice(start, start + batch_size)
        yield dataclasses.replace(
            arrays, names=arrays.names[rows], images_rgb=arrays.images_rgb[rows], masks=arrays.masks[rows]
        )


def joined(parts: Sequence[LabelledArrays]) -> LabelledArrays:
    """Several sets as one; their images have one size, and their masks are of one kind."""
    return LabelledArrays(
        tuple(itertools.chain.from_iterable(part.names for part in parts)),
        np.concatenate([part.images_rgb for part in parts]),
        np.concatenate([part.masks for part in parts]),
        parts[0].soft,
    )
