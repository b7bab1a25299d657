"""Load a TensorRT engine and run it."""
