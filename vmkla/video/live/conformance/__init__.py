"""Delays and pixels of live mode, measured at the display buffer."""
