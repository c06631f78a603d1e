"""Ways to eight bits: calibration, bias correction, sensitive layers, and quantization-aware distillation."""
