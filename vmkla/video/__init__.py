"""What happens to frames: files, images and live sources."""

# Before PyAV, wherever the first import comes from: both bring a libxcb, and behind PyAV's no window opens.
import cv2  # noqa: F401
