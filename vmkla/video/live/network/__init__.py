"""The network's process, and who watches over it."""
