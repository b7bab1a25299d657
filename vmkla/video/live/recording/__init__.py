"""Raw and overlay files of a live run, written by a process of its own."""
