"""Compare two models over the same frames, and check the differences against gates."""
