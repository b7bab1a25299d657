"""Export a PyTorch network as one ONNX file for every runtime, checked before it gets its name."""

from vmkla.export.exporter import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
