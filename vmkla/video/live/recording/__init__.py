"""Recording of a live run: raw and overlay files, written by a process of its own."""
