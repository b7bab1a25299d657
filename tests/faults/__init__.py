"""What injects failures: into the network, the source, the recording and what is around live mode."""
