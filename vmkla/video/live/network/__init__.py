"""The network's process, and its supervisor."""
