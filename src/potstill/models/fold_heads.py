"""The out-of-fold heads of a stored teacher: each learned without one fold of the photos."""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn


def load_fold_heads(folder: Path) -> list[nn.Module]:
    """The out-of-fold heads of a stored teacher, in order of fold; empty when it has none."""
    path = folder / "fold_heads.safetensors"
    if not path.is_file():
        return []
    tensors = load_file(path)
    heads = []
    for fold in range(1 + max(int(name.split(".")[0]) for name in tensors)):
        layers: list[nn.Module] = []
        for number in range(1 + max(int(name.split(".")[1]) for name in tensors)):
            weight, bias = tensors[f"{fold}.{number}.weight"], tensors[f"{fold}.{number}.bias"]
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias})
            layers += [layer] if not layers else [nn.ReLU(), layer]
        heads.append(layers[0] if len(layers) == 1 else nn.Sequential(*layers))
    return [head.eval() for head in heads]
