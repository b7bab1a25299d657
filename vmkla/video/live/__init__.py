"""Live mode: a frame path that waits for nobody, and processes beside it that may fail."""

# Before anything here imports PyAV: both bring a libxcb, and behind PyAV's no window ever opens.
import cv2  # noqa: F401
