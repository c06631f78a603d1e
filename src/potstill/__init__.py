"""Turn a folder of photos into a small image classifier, and measure what distillation gained.

run = potstill.distill("data", students=["mobilenetv3_small_100"])
run.student.predict("cat.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.config.schema import Config
    from potstill.deploy.predictor import LabelsPrediction, Prediction, Predictor
    from potstill.deploy.predictor import load_predictor as load
    from potstill.errors import PotstillError
    from potstill.evaluation.evaluate import evaluate
    from potstill.evaluation.result import Evaluation
    from potstill.pipeline import Result, distill
    from potstill.updating import update

_WHERE = {
    "Config": ("potstill.config.schema", "Config"),
    "Evaluation": ("potstill.evaluation.result", "Evaluation"),
    "LabelsPrediction": ("potstill.deploy.predictor", "LabelsPrediction"),
    "PotstillError": ("potstill.errors", "PotstillError"),
    "Prediction": ("potstill.deploy.predictor", "Prediction"),
    "Predictor": ("potstill.deploy.predictor", "Predictor"),
    "Result": ("potstill.pipeline", "Result"),
    "distill": ("potstill.pipeline", "distill"),
    "evaluate": ("potstill.evaluation.evaluate", "evaluate"),
    "load": ("potstill.deploy.predictor", "load_predictor"),
    "update": ("potstill.updating", "update"),
}

__all__ = [
    "Config",
    "Evaluation",
    "LabelsPrediction",
    "PotstillError",
    "Prediction",
    "Predictor",
    "Result",
    "distill",
    "evaluate",
    "load",
    "update",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `import potstill` itself is cheap and does not import torch (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
