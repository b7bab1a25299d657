"""Where live pictures come from: cameras, streams, files and their stand-ins."""
