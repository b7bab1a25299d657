"""Sources of live frames: cameras, streams, files and rendered clips."""
