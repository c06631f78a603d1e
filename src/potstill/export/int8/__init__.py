"""Candidates for int8 files: calibration, bias correction, sensitive layers, and quantization-aware distillation."""
