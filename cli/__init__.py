"""The command line: parse, call one function of the packages beside it, print; nothing else."""
