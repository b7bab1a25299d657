"""Labelled images in memory that processes share."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.errors import VmklaError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """Images of one size, and behind all of them their masks.

    Attributes:
        count: how many.
        height, width: of each, px.
    """

    count: int
    height: int
    width: int

    @property
    def size_bytes(self) -> int:
        """Bytes of images and masks."""
        return 4 * self.count * self.height * self.width

    def views(self, memory: mmap.mmap) -> tuple[Pixels, Pixels]:
        """(count, height, width, 3) uint8 RGB and (count, height, width) uint8, in that memory."""
        area = self.count * self.height * self.width
        images = np.frombuffer(memory, np.uint8, 3 * area)
        masks = np.frombuffer(memory, np.uint8, area, 3 * area)
        shape = (self.count, self.height, self.width)
        return images.reshape(*shape, 3), masks.reshape(shape)


def create_shared(layout: Layout) -> tuple[int, Pixels, Pixels]:
    """Take memory that other processes can map. It is gone with the last process that does.

    It is anonymous: no file is left behind, and the size of ``/dev/shm`` does not limit it.

    Returns:
        Its file descriptor, which the caller closes, and images and masks as ``Layout.views``.
    Raises:
        VmklaError: there is not enough memory.
    """
    fd = os.memfd_create("vmkla-augment", os.MFD_CLOEXEC)
    try:
        # Memory that is missing is an error here, and not a killed process at the first writing.
        os.posix_fallocate(fd, 0, layout.size_bytes)
        return fd, *layout.views(mmap.mmap(fd, layout.size_bytes))
    except OSError as error:
        os.close(fd)
        raise VmklaError(
            f"no memory for {layout.count} images of {layout.height}x{layout.width} pixels, "
            f"{layout.size_bytes / 1e6:.0f} MB: {error.strerror or error}",
            hint="Free some memory, or share none: vmkla train --workers 0",
        ) from error


def attach_shared(fd: int, layout: Layout, *, writable: bool) -> tuple[Pixels, Pixels]:
    """Map what another process made by ``create_shared``, and close the descriptor."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    try:
        return layout.views(mmap.mmap(fd, layout.size_bytes, access=access))
    finally:
        os.close(fd)
