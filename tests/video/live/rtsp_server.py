"""An RTSP camera for the tests. It needs GStreamer's RTSP server, so it runs under the system's Python.

In the upper left corner of each frame stands the time of ``time.monotonic()`` at which it was made, in
milliseconds: 32 squares of 16 px in two rows, the highest bit first, bright for 1. The rest is moving noise.

It prints ``ready`` when it answers. Lines on standard input: ``size 480x360``, ``stall``, ``go``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

SQUARE_PX = 16
ENCODERS = {
    # One thread makes one slice a frame: this payloader puts parameter sets between the slices of a key
    # frame, and readers take what follows them for the next one.
    "h264": "x264enc tune=zerolatency threads=1 speed-preset=ultrafast key-int-max=15 bitrate=4000 "
    "! rtph264pay name=pay0 pt=96 config-interval=-1",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}


class Camera:
    """Makes frames at a steady rate for as many streams as there are."""

    def __init__(self, size_wh: tuple[int, int], fps: int) -> None:
        self.size_wh, self.fps = size_wh, fps
        self.stalled = False
        self.sources: list[Any] = []
        self.noise = bytes(random.Random(0).choices(range(90, 140), k=1 << 20))
        GLib.timeout_add(1000 // fps, self.push)

    def caps(self) -> str:
        """Return GStreamer's caps of the frames."""
        width, height = self.size_wh
        return f"video/x-raw,format=I420,width={width},height={height},framerate={self.fps}/1"

    def resize(self, size_wh: tuple[int, int]) -> None:
        """Another size from the next frame on, without a new connection."""
        self.size_wh = size_wh
        for source in self.sources:
            source.set_property("caps", Gst.Caps.from_string(self.caps()))

    def add(self, media: Any) -> None:
        """A client asked for a stream."""
        source = media.get_element().get_child_by_name("camera")
        self.sources.append(source)
        media.connect("unprepared", lambda _media: self.sources.remove(source))

    def push(self) -> bool:
        """Send a frame; called by the main loop."""
        if not self.stalled and self.sources:
            data = self.frame()
            for source in self.sources:
                source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
        return True

    def frame(self) -> bytes:
        """I420: a luma plane, and two of a quarter of its size for colour."""
        width, height = self.size_wh
        start = random.randrange(len(self.noise) - width * height)
        luma = bytearray(self.noise[start : start + width * height])
        bits = f"{int(time.monotonic() * 1000) & 0xFFFFFFFF:032b}"
        for half in (0, 1):
            line = b"".join(
                (b"\xeb" if bit == "1" else b"\x10") * SQUARE_PX for bit in bits[16 * half : 16 * half + 16]
            )
            for row in range(half * SQUARE_PX, (half + 1) * SQUARE_PX):
                luma[row * width : row * width + len(line)] = line
        return bytes(luma) + b"\x80" * (width * height // 2)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--encoder", choices=ENCODERS, default="h264")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    options = parser.parse_args()

    Gst.init(None)
    width, height = map(int, options.size.split("x"))
    camera = Camera((width, height), options.fps)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(options.port))
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    factory.set_launch(
        f"( appsrc name=camera is-live=true do-timestamp=true format=time caps={camera.caps()} "
        f"! {ENCODERS[options.encoder]} )"
    )
    factory.connect("media-configure", lambda _factory, media: camera.add(media))
    if options.user:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "reader")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("reader", "media.factory.access", True)
        permissions.add_permission_for_role("reader", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        sys.exit(f"port {options.port} is taken")

    def command(stream: Any, _condition: Any) -> bool:
        words = stream.readline().split()
        if words[:1] == ["size"]:
            width, height = map(int, words[1].split("x"))
            camera.resize((width, height))
        elif words:
            camera.stalled = words[0] == "stall"
        return bool(words)

    GLib.io_add_watch(sys.stdin, GLib.IO_IN | GLib.IO_HUP, command)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
