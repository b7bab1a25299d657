"""Shared memory between the display process and those beside it: pictures, results, pulses."""
