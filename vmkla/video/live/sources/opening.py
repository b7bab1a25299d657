"""Create the camera for an address."""

from __future__ import annotations

from vmkla.video.live.sources.cameras import Camera, CameraContext
from vmkla.video.media.address import LiveAddress


def make_camera(address: LiveAddress, context: CameraContext, *, loop: bool = False) -> Camera:
    """Create the camera for an address, without opening it.

    Args:
        address: address of the source.
        context: what the source needs from its owner.
        loop: start a file again when it ends.
    """
    if address.kind == "file":
        from vmkla.video.live.sources.playback import FileCamera

        return FileCamera(address, context, loop=loop)
    if address.kind == "sample":
        from vmkla.video.live.sources.playback import SampleCamera

        return SampleCamera(address, context)
    if address.kind in ("rtsp", "pipe"):
        from vmkla.video.live.sources.streaming import StreamCamera

        return StreamCamera(address, context)
    from vmkla.video.live.sources.opencv_camera import OpenCvCamera

    return OpenCvCamera(address, context)
