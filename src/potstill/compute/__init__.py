"""How a model runs on this machine: device, arithmetic, threads, compilation, and inference over views.

What needs a measurement is chosen here by timing. Imports `errors`, `config`, `data`, `metrics`, `models`, `processes`
and `run`. A new backend is one module like `onnx_backbone` and one entry in `backends`.
"""
