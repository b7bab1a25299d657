"""What may be drawn on a frame, and where."""
