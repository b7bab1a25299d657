"""Annotated recordings: frames with times, and the lesions in each by their identity. No torch."""
