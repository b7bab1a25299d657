"""Videos and images: read and write them (media), segment each frame (file), or show the newest (live)."""
