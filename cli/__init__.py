"""The command line: each command parses its flags, calls one function of another package and prints."""
