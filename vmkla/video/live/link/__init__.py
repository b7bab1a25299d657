"""Shared memory between the display process and those beside it: frames, results, pulses."""
