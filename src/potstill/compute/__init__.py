"""How a model runs on this machine: device, arithmetic, threads, compilation, and inference over views.

What needs a measurement is chosen here by timing. Imports `config`, `data`, `models`, `processes`, `run` and metrics.
A new backend is one module like `onnx_backbone` and
one entry in `backends`.
"""
