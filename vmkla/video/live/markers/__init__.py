"""Detection markers: prepare them, and decide which may be drawn on which frame, and where."""
