"""Where live frames come from: cameras, streams, files and their stand-ins."""
