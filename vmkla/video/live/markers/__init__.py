"""What may be drawn on a picture, and where."""
