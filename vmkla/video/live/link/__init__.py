"""Shared memory between the display process and the others: frames, results, pulses, status."""
