"""Videos and images: reading and writing (media), every frame of a file (file), the newest frame (live)."""
