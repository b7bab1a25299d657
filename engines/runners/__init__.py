"""Load a model and run it: ONNX Runtime and PyTorch. TensorRT's runner is in engines/tensorrt/run."""
