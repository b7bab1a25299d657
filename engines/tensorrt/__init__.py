"""TensorRT and TensorRT-RTX: build an engine with its manifest from an ONNX file, and run it."""
