"""Read, decode and write videos and images; render the procedural clip."""
