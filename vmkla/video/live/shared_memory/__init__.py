"""Shared memory between the display process and the others: slots, a ring of frames, boards for messages."""
