"""TensorRT and TensorRT-RTX: from an ONNX file to an engine with its manifest, and what runs it."""
