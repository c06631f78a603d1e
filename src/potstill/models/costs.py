"""What a model costs: parameters, multiply-accumulates, milliseconds per photo."""

import statistics
import time

import torch
from torch import nn

from potstill.models.classifier import Classifier
from potstill.models.onnx_classifier import OnnxClassifier

TIMED_PHOTOS = 30


def parameters_of(model: nn.Module) -> int:
    """Number of trained numbers."""
    if isinstance(model, OnnxClassifier):
        return int(model.info.arguments["parameters"])
    return sum(p.numel() for p in model.parameters())


def macs_of(model: Classifier) -> int:
    """Multiply-accumulate operations for one photo, counted by torch (convolutions and matrix products); 0 for an ONNX
    classifier of which they are not known."""
    if isinstance(model, OnnxClassifier):
        return int(model.info.arguments["macs"] or 0)
    from torch.utils.flop_counter import FlopCounterMode

    model = model.eval()
    pixels = torch.zeros(1, 3, model.info.size, model.info.size, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels)
    return int(counter.get_total_flops()) // 2


def milliseconds_of(model: Classifier) -> float:
    """Median time of one photo, in torch or ONNX Runtime, on one thread of this machine's CPU, without reading and
    resizing it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = model.cpu().eval().to(memory_format=torch.channels_last)
    pixels = torch.zeros(1, 3, model.info.size, model.info.size).to(memory_format=torch.channels_last)
    times = []
    try:
        with torch.inference_mode():
            for _ in range(TIMED_PHOTOS + 3):
                started = time.perf_counter()
                model(pixels)
                times.append(1000 * (time.perf_counter() - started))
    finally:
        torch.set_num_threads(threads)
    return round(statistics.median(times[3:]), 3)
