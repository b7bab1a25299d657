"""Labelled images in memory at the network's size, and the batches that training takes from them."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.cpus import cpu_budget
from vmkla.data.augment import AugmentConfig, augment
from vmkla.data.sources import Sample
from vmkla.errors import BadInputError
from vmkla.preprocess import PreprocessSpec, field_of_view, prepare, prepare_mask

CROP_MARGIN = 1.25
"""Images that will be warped are kept this much larger than the network's input, for detail."""


@dataclass(frozen=True)
class LabelledArrays:
    """Labelled images of one size: a whole set, or the batch of a step.

    Attributes:
        names: one per image.
        images_rgb: (n, h, w, 3) uint8.
        masks: (n, h, w) uint8, class indices; 0 is the background.
    """

    names: tuple[str, ...]
    images_rgb: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)


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
    rect = field_of_view(sample.image_rgb, spec.roi)
    return prepare(sample.image_rgb, spec, rect), prepare_mask(sample.mask, spec, rect)


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


def loader_threads(device: str, processes: int = 1) -> int:
    """How many threads augment: one on a CPU, which the network needs itself; a GPU's machine gives eight.

    Args:
        device: kind of device that trains, ``"cpu"`` or ``"cuda"``.
        processes: training processes, which share the machine's cores.
    """
    return 1 if device == "cpu" else max(1, min(8, cpu_budget().cpus // processes))


class TrainLoader:
    """Augmented batches in a random order, made in the background, a few ahead of the training.

    Order and augmentation depend on nothing but (seed, epoch, index), so a run that is cut off in the
    middle of an epoch goes on with the batches that it would have had.

    Args:
        arrays: the training images; ``cache_spec`` gives their size.
        batch_size: images per batch; what is left over at the end of an epoch is left out.
        size_hw: size of the batches' images, px.
        config: strengths of the augmentation.
        seed: of order and augmentation.
        ahead: batches made in advance.
        part: of every batch, the images that are made; one of several processes makes its own alone.
        threads: images augmented at a time; a GPU wants more than one. The batches are the same.
    """

    def __init__(
        self,
        arrays: LabelledArrays,
        *,
        batch_size: int,
        size_hw: tuple[int, int],
        config: AugmentConfig,
        seed: int,
        ahead: int = 2,
        part: slice = slice(None),
        threads: int = 1,
    ) -> None:
        if len(arrays) < batch_size:
            raise BadInputError(
                f"the training set has {len(arrays)} images, fewer than one batch of {batch_size}",
                hint="Use a smaller batch, or more images.",
            )
        self.arrays = arrays
        self.batch_size = batch_size
        self.size_hw = size_hw
        self.config = config
        self.seed = seed
        self.ahead = ahead
        self.part = part
        self._pool = ThreadPoolExecutor(threads, "vmkla-augment") if threads > 1 else None

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.arrays) // self.batch_size

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Indices of an epoch's images, in order."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.arrays))

    def batch(self, epoch: int, indices: Sequence[int] | npt.NDArray[np.int64]) -> LabelledArrays:
        """Augment the images of these indices as this epoch does."""
        images = np.empty((len(indices), *self.size_hw, 3), np.uint8)
        masks = np.empty((len(indices), *self.size_hw), np.uint8)

        def make(index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
            rng = np.random.default_rng((self.seed, epoch, int(index)))
            image, mask = self.arrays.images_rgb[index], self.arrays.masks[index]
            return augment(image, mask, self.size_hw, self.config, rng)

        made = map(make, indices) if self._pool is None else self._pool.map(make, indices)
        for row, (image, mask) in enumerate(made):
            images[row], masks[row] = image, mask
        return LabelledArrays(tuple(self.arrays.names[index] for index in indices), images, masks)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[LabelledArrays]:
        """Batches of one epoch.

        Args:
            epoch: from 0.
            first_step: batches to leave out, because an earlier part of the run took them.
        """
        order = self.order(epoch)
        chunks = (order[s * self.batch_size :][: self.batch_size] for s in range(first_step, self.steps))
        return _made_ahead((self.batch(epoch, chunk[self.part]) for chunk in chunks), self.ahead)


def _made_ahead(batches: Iterator[LabelledArrays], ahead: int) -> Iterator[LabelledArrays]:
    """Run an iterator in a thread, ``ahead`` items early; its exception is raised here."""
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
        thread.join()


def in_batches(arrays: LabelledArrays, batch_size: int) -> Iterator[LabelledArrays]:
    """All images in order, the last batch smaller where it must be."""
    for start in range(0, len(arrays), batch_size):
        rows = slice(start, start + batch_size)
        yield LabelledArrays(arrays.names[rows], arrays.images_rgb[rows], arrays.masks[rows])


def joined(parts: Sequence[LabelledArrays]) -> LabelledArrays:
    """Several sets as one; their images have one size."""
    return LabelledArrays(
        tuple(itertools.chain.from_iterable(part.names for part in parts)),
        np.concatenate([part.images_rgb for part in parts]),
        np.concatenate([part.masks for part in parts]),
    )
