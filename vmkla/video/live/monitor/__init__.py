"""The monitor page: a read-only view of live mode, served by a process of its own."""
