"""Scripts that measure; each writes its results beside itself."""
