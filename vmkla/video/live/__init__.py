"""Live mode: a picture path that waits for nobody, and processes beside it that may fail."""
