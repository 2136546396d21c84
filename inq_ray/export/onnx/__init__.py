"""Results as ONNX and QONNX; needs the extra onnx."""
