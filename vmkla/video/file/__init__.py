"""Segment every frame of a file, in order."""
