"""Live mode: show the newest frame with markers, beside processes that may fail."""

# Before anything here imports PyAV: both bring a libxcb, and with PyAV's loaded first no window opens.
import cv2  # noqa: F401
