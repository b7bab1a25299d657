"""Conformance of live mode: delays and pixels, measured at the display buffer."""
