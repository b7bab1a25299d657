"""Suffixes of video files. It imports nothing, since commands use it."""

from __future__ import annotations

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".m4v", ".wmv", ".flv")
    + (".mts", ".m2ts", ".vob", ".asf", ".mxf", ".3gp", ".ogv")
)
"""Suffixes of videos in a folder; a single file is read whatever its name."""
