"""Convert decoded frames to upright RGB by their tags for colour matrix, range and rotation."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vmkla.video.media.frames import ColourMatrix

_BT709, _UNSPECIFIED, _SMPTE240M, _BT2020 = 1, 2, 7, (9, 10)  # FFmpeg's AVColorSpace
_FULL_RANGE, _UNSPECIFIED_RANGE = 2, 0  # FFmpeg's AVColorRange
_HD_HEIGHT_PX = 720
_ABORTS = "yaf"  # swscale aborts on grey with alpha in 32-bit floats
_side_data: Any = SideDataContainer  # PyAV's stubs leave its argument out


def check_pixel_format(frame: Any) -> None:
    """Reject pixel formats whose conversion makes FFmpeg abort the process.

    Raises:
        ValueError: the frame has such a pixel format.
    """
    if frame.format.name.startswith(_ABORTS):
        raise ValueError(f"pixel format {frame.format.name} has no way to RGB")


class RgbConverter:
    """Converts decoded frames to upright RGB arrays."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> tuple[npt.NDArray[np.uint8], bool, ColourMatrix]:
        """Convert a frame.

        Returns:
            (H, W, 3) uint8, whether width and height were swapped, and the colour matrix for a copy.
        Raises:
            ValueError: the conversion of this pixel format would abort the process.
        """
        check_pixel_format(frame)
        colorspace = self._colorspace(frame)
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        # PyAV before 17 converts a tagged frame to the wrong range, so the call states everything.
        frame.colorspace, frame.color_range = _UNSPECIFIED, _UNSPECIFIED_RANGE
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=colorspace,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        rgb = np.asarray(converted.to_ndarray(), dtype=np.uint8)
        # ``frame.side_data`` would create a reference cycle, which holds hundreds of MiB at 1080p until the
        # next garbage collection.
        matrix = _side_data(frame).get("DISPLAYMATRIX")
        shown, swapped = (rgb, False) if matrix is None else upright(rgb, bytes(matrix))
        return shown, swapped, "bt601" if colorspace == Colorspace.ITU601 else "bt709"

    @staticmethod
    def _colorspace(frame: Any) -> Colorspace:
        tag = int(frame.colorspace)
        if tag == _UNSPECIFIED:
            return Colorspace.ITU709 if frame.height >= _HD_HEIGHT_PX else Colorspace.ITU601
        if tag in _BT2020:
            return Colorspace.BT2020
        if tag == _SMPTE240M:
            return Colorspace.SMPTE240M
        return Colorspace.ITU709 if tag == _BT709 else Colorspace.ITU601


def upright(rgb: npt.NDArray[np.uint8], display_matrix: bytes) -> tuple[npt.NDArray[np.uint8], bool]:
    """Rotate and mirror a frame by its display matrix, to the nearest quarter turn.

    Args:
        rgb: (H, W, 3) uint8, as stored.
        display_matrix: nine int32 in native order, FFmpeg's and MP4's: a pixel (x, y) of the stored frame
            is shown at (a x + c y, b x + d y), where a, b, c, d are elements 0, 1, 3, 4.
    Returns:
        The frame as shown, contiguous, and whether width and height were swapped.
    """
    a, b, _, c, d = struct.unpack("=9i", display_matrix[:36])[:5]
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    shown = rgb.transpose(1, 0, 2) if swapped else rgb
    x_sign, y_sign = (c, b) if swapped else (a, d)
    if x_sign < 0:
        shown = shown[:, ::-1]
    if y_sign < 0:
        shown = shown[::-1]
    return np.ascontiguousarray(shown), swapped
