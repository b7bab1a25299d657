"""Inject failures into the network, the source, the recording and the surroundings of live mode."""
