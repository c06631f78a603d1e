"""Models by name: build them with timm, split them into backbone and head, save them and load them again."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from potstill.errors import ModelError
from potstill.models.weights import Role, initial_weights
from potstill.models.zoo import CLASSICS, PRESET_SIZES, PRESETS, TENSORFLOW, construct, near
from potstill.run.files import read_json, replacing, sha256_of, write_json
from potstill.run.layout import weights_path
from potstill.run.trained import Trained

FORMAT = 4
"""Of model.json. A reader refuses a higher number. Format 1 had no crop, which was 1; format 2 no stages, which were 0;
format 3 called `crop_pct` `crop` and `feature_stages` `levels`."""

_FORMER_NAMES = {"crop": "crop_pct", "levels": "feature_stages"}
"""Keys of model.json before format 4, and what they are called now."""

HEAD_STD = 0.01
"""Standard deviation of new head weights. timm's own start of MobileNet and EfficientNet heads is far too large for
few classes (a first loss of up to 5.8 instead of 1.1 with three)."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Everything that is needed to build a stored model again: the content of model.json."""

    name: str
    """As the user calls it."""
    classes: tuple[str, ...]
    size: int
    """Input side in pixels."""
    mean: tuple[float, ...]
    """Per channel, of inputs in 0…1."""
    std: tuple[float, ...]
    architecture: str
    """timm's name, `mobilenetv1` with a channel_multiplier, or `onnx`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """For timm's constructor; of an ONNX classifier, see `potstill.models.onnx_classifier.arguments_of`."""
    head_width: int = 0
    """Neurons of the head's hidden layer, 0 for a linear head."""
    feature_stages: int = 0
    """Stages of the backbone that the head sees beside its last features (`Classifier.features`); `build` makes it 0
    for models that cannot show them."""
    crop_pct: float = 1.0
    """Share of the center square's side that it is given (`potstill.data.resize.crop_side`)."""
    several_labels: bool = False
    """Whether a photo may have several labels: each class has a probability of its own then, by a sigmoid. Not in the
    model.json of models for one label per photo."""
    weights: dict[str, Any] = field(default_factory=dict)
    """Where the starting weights came from: source, file, sha256, license."""
    trained: Trained = field(default_factory=Trained)
    """How it was trained, and what was fitted on val."""
    format: int = FORMAT


_UNSPLIT = """{} cannot be used: Potstill puts a new head on a model's last features, but here {}.
  `potstill models PATTERN` lists others."""


class Classifier(nn.Module):
    """A timm model, split into `features` (what the head sees) and `head`."""

    def __init__(self, net: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.net = net
        self.info = info
        head_of = net.get_classifier()  # type: ignore[operator]
        names = [name for name, module in net.named_modules() if module is head_of]
        if not names:
            raise ModelError(_UNSPLIT.format(info.name, "it has no single classifier"))
        self.head_name = names[0]
        """Of the classifier in `net`."""
        self._stages, self._stage_widths = _stages_of(net, info.feature_stages)

    @property
    def head(self) -> nn.Module:
        return self.net.get_submodule(self.head_name)

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalized pixels → (B, D) pooled features, the head's input.

        With `info.feature_stages` the mean and deviation of every channel of so many earlier maps follow the last
        features (Evci et al. 2022, "Head2Toe", arXiv:2201.03529): the last layers no longer represent what did not
        help to separate ImageNet's classes.
        """
        net: Any = self.net
        if not self._stages:
            return net.forward_head(net.forward_features(pixels), pre_logits=True)
        last, maps = net.forward_intermediates(pixels, indices=self._stages)
        return torch.cat([net.forward_head(last, pre_logits=True).float(), *(_moments(m) for m in maps)], dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalized pixels → (B, C) logits."""
        return self.head(self.features(pixels))

    def both(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) → features (B, D) and logits (B, C)."""
        features = self.features(pixels)
        return features, self.head(features)

    @property
    def num_features(self) -> int:
        """D."""
        first = self.head if isinstance(self.head, nn.Linear) else next(iter(self.head.children()))
        assert isinstance(first, nn.Linear)
        return first.in_features

    @property
    def num_last_features(self) -> int:
        """How many of them, the first ones, are the backbone's last."""
        return self.num_features - 2 * sum(self._stage_widths)


def _stages_of(net: nn.Module, feature_stages: int) -> tuple[list[int], list[int]]:
    """Which of timm's intermediate maps, evenly spread and ending with the last, and their channels."""
    found: Any = getattr(net, "feature_info", None) if hasattr(net, "forward_intermediates") else None
    count = min(feature_stages, len(found or []))
    stages = [math.ceil(len(found) * number / count) - 1 for number in range(1, count + 1)]
    return stages, [int(found[stage]["num_chs"]) for stage in stages]


@torch.no_grad()
def _has_usable_maps(model: Classifier) -> bool:
    """Whether timm's intermediate maps have the documented widths, and the last features stay the same."""
    net: Any = model.net.eval()
    pixels = _some_pixels(model.info)
    try:
        _, maps = net.forward_intermediates(pixels, indices=model._stages)
        last = net.forward_head(net.forward_features(pixels), pre_logits=True)
        same = torch.allclose(model.features(pixels)[:, : last.shape[1]], last, atol=1e-4 * float(last.abs().max()))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    finally:
        net.train()
    return same and [m.shape[1] for m in maps] == model._stage_widths


@torch.no_grad()
def _require_logits(model: Classifier) -> None:
    """ModelError where the head does not fit the features: some of timm's models have more layers before their head."""
    try:
        model.eval()(_some_pixels(model.info))
    except (RuntimeError, TypeError) as error:
        reason = f"the two do not fit ({str(error).splitlines()[0]})"
        raise ModelError(_UNSPLIT.format(model.info.name, reason)) from None
    finally:
        model.train()


def _some_pixels(info: ModelInfo) -> Tensor:
    """(1, 3, S, S) random, always the same."""
    return torch.randn(1, 3, info.size, info.size, generator=torch.Generator().manual_seed(0))


def _moments(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 2C): mean and standard deviation over all places."""
    var, mean = torch.var_mean(maps.float(), dim=(2, 3), correction=0)
    return torch.cat([mean, (var + 1e-6).sqrt()], dim=-1)


def normalize(pixels: Tensor, info: ModelInfo) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float32 in channels-last memory, with the model's mean and std."""
    # Row by row: with the three channels as the last axis, torch takes three to fifteen times as long.
    scale, shift = _scale_and_shift(info.mean, info.std, pixels.shape[2], pixels.device, torch.get_default_dtype())
    return pixels.flatten(2).float().mul(scale).add_(shift).view(pixels.shape).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(3 · width,) what a row of pixels in 0…255 is multiplied with, and what is added. Kept, because a GPU that is
    given numbers in every step has to be waited for in every step."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * s) for s in std], dtype=dtype, device=device).repeat(width)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=device).repeat(width)
    return scale, shift


def probabilities(logits: Tensor, *, several_labels: bool) -> Tensor:
    """(…, C) of logits (…, C): each class for itself where a photo may have several labels, else of one among all."""
    return logits.sigmoid() if several_labels else logits.softmax(-1)


def describe(
    name: str,
    classes: Sequence[str],
    *,
    size: int | None = None,
    head_width: int = 0,
    feature_stages: int = 0,
    several_labels: bool = False,
) -> ModelInfo:
    """What the model of this name would be, without building it or touching weights.

    Raises:
        ModelError: no such model; the message has the nearest names.
    """
    common: dict[str, Any] = {
        "name": name,
        "classes": tuple(classes),
        "head_width": head_width,
        "feature_stages": feature_stages,
        "several_labels": several_labels,
    }
    if name in CLASSICS:
        architecture, arguments, own_size = CLASSICS[name]
        return ModelInfo(**common, **TENSORFLOW, architecture=architecture, arguments=arguments, size=size or own_size)
    architecture = PRESETS[name][0] if name in PRESETS else name
    known = timm.is_model(architecture)
    try:
        config = timm.get_pretrained_cfg(architecture) if known else None
    except RuntimeError:  # no such weights tag, the part after the point
        known = False
    if not known:
        raise ModelError(
            f"There is no model {name!r}.{near(name)}\n"
            "  `potstill models` lists the presets, `potstill models PATTERN` everything in timm."
        )
    input_size = config.input_size[-1] if config else 224
    size = size or PRESET_SIZES.get(name) or input_size
    # Vision transformers are built for one size; convolutions take any.
    arguments = {"img_size": size} if architecture.startswith("vit_") else {}
    mean, std = (config.mean, config.std) if config else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return ModelInfo(**common, architecture=architecture, arguments=arguments, size=size, mean=mean, std=std)


def build(
    info: ModelInfo, *, weights: str = "none", role: Role = "teacher", dropout: float = 0.0, seed: int = 0
) -> Classifier:
    """A new model with a fresh head.

    Args:
        weights: "auto", "package", "hub", "none", or a file; see `potstill.models.weights`.
        role: what the model is in the run, for messages about missing weights.
        dropout: before the head's last layer.
        seed: of everything that starts random. The caller's generator is left alone.
    Returns:
        The model in training mode, `info.weights` filled in.
    Raises:
        ModelError: the model is not made of features and a head.
        WeightsError: weights cannot be had, or do not fit.
    """
    state, source = initial_weights(info.architecture, info.arguments, weights, role)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = construct(info.architecture, info.arguments)
        if state is not None:
            net.load_state_dict(state, strict=False)  # all but the classifier; names and shapes are checked already
        model = Classifier(net, dataclasses.replace(info, weights=source))
        if model._stages and not _has_usable_maps(model):
            model = Classifier(net, dataclasses.replace(info, weights=source, feature_stages=0))
        _set_head(model, len(info.classes), info.head_width, dropout)
    _require_logits(model)
    return model


def feature_widths(info: ModelInfo) -> tuple[int, int]:
    """Numbers of features: of all that the head sees, and of the backbone's last. No weights are loaded."""
    try:
        with torch.device("meta"):
            model = Classifier(construct(info.architecture, info.arguments), info)
    except (RuntimeError, NotImplementedError):  # a constructor that computes with its tensors
        model = Classifier(construct(info.architecture, info.arguments), info)
    last = model.head.in_features if isinstance(model.head, nn.Linear) else int(model.net.num_features)  # type: ignore[arg-type]
    return last + 2 * sum(model._stage_widths), last


def save(model: Classifier, folder: Path, trained: Trained | None = None) -> ModelInfo:
    """Write `model.safetensors` and `model.json`.

    The tensor names are timm's, so `timm.create_model(architecture, num_classes=C, checkpoint_path=…)` reads the file
    too when the head is linear.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.net.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(state, temporary)
    info = dataclasses.replace(model.info, format=FORMAT, trained=trained or model.info.trained)
    described = dataclasses.asdict(info)
    if not info.several_labels:  # as it was before there was a choice
        del described["several_labels"], described["trained"]["thresholds"]
    write_json(folder / "model.json", {**described, "sha256": sha256_of(folder / "model.safetensors")})
    return info


def read_description(folder: Path) -> dict[str, Any]:
    """The plain values of model.json, in today's format. Raises ModelError for a newer format."""
    values = read_json(folder / "model.json")
    if values.get("format", 0) > FORMAT:
        raise ModelError(f"{folder}/model.json was written by a newer Potstill (format {values['format']}). Upgrade.")
    return {_FORMER_NAMES.get(key, key): value for key, value in values.items()} | {"format": FORMAT}


def load_info(folder: Path) -> ModelInfo:
    """Read model.json. Raises ModelError where it is not one."""
    values = read_description(folder)
    values.pop("sha256", None)
    try:
        info = ModelInfo(**{**values, "trained": Trained.of(values.get("trained", {}))})
    except TypeError as error:
        raise ModelError(f"{folder}/model.json does not describe a model: {error}") from None
    return dataclasses.replace(info, classes=tuple(info.classes), mean=tuple(info.mean), std=tuple(info.std))


def load(folder: Path) -> Classifier:
    """A stored model, in evaluation mode.

    Raises:
        ModelError: the files are missing, damaged, or do not belong together.
    """
    info = load_info(folder)
    path = weights_path(folder)
    if not path.is_file():
        raise ModelError(f"{path} is missing.")
    if sha256_of(path) != read_json(folder / "model.json").get("sha256"):
        raise ModelError(f"{path} is not the file that model.json describes (sha256 differs): damaged or swapped.")
    if path.suffix == ".onnx":
        from potstill.models.onnx_classifier import OnnxClassifier

        return OnnxClassifier(info, path.read_bytes()).eval()
    model = Classifier(construct(info.architecture, info.arguments), info)
    _set_head(model, len(info.classes), info.head_width, 0.0)
    model.net.load_state_dict(load_file(path))
    return model.eval()


def _set_head(model: Classifier, classes: int, width: int, dropout: float) -> None:
    """Put a fresh head in the place of the classifier: linear, or one hidden layer."""
    old = model.head
    inputs = old.in_features if isinstance(old, nn.Linear) else int(model.net.num_features)  # type: ignore[arg-type]
    inputs += 2 * sum(model._stage_widths)
    last = nn.Linear(width or inputs, classes)
    nn.init.normal_(last.weight, std=HEAD_STD)
    nn.init.zeros_(last.bias)
    head: nn.Module = last
    if width:
        head = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout), last)
    parent, _, leaf = model.head_name.rpartition(".")
    setattr(model.net.get_submodule(parent) if parent else model.net, leaf, head)
