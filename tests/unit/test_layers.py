"""Who may import whom: read from the source, so that a shortcut between stages cannot slip in."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tests.support import environment

import potstill

ROOT = Path(potstill.__file__).parent

GROUND = {"errors", "wording"}
"""What everything stands on."""

FOUNDATION = {
    *GROUND,
    "config",
    "run",
    "storage",
    "monitoring",
    "processes",
    "metrics",
    "data",
    "models",
    "compute",
    "training",
}
"""What all stages from the teacher to the comparison stand on."""

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "wording": set(),
    "processes": GROUND,
    "config": GROUND,
    "metrics": {*GROUND, "config"},
    "run": {*GROUND, "metrics"},
    "storage": {*GROUND, "run"},
    "monitoring": {*GROUND, "run", "storage"},
    "data": {*GROUND, "config", "run", "metrics"},
    "models": {*GROUND, "run", "metrics"},
    "compute": {*GROUND, "config", "run", "processes", "metrics", "data", "models"},
    "training": {*GROUND, "run", "processes", "compute"},
    "engines": {*GROUND, "config", "run", "processes"},
    "context": {"run", "monitoring", "compute", "engines"},
    "shards": {*GROUND, "run", "data", "engines", "context"},
    "images": {*GROUND, "config", "run", "storage", "monitoring", "processes", "data", "engines", "context"},
    "packing": {"compute", "images"},
    "teacher": FOUNDATION | {"context", "shards"},
    "soft_labels": FOUNDATION | {"context", "shards"},
    "students": FOUNDATION | {"context", "engines"},
    "comparison": FOUNDATION | {"context"},
    "controls": FOUNDATION | {"context", "images", "soft_labels", "students"},
    "deploy": {*GROUND, "processes", "run", "storage", "data", "models", "images"},
    "export": FOUNDATION | {"deploy"},
    "report": {*GROUND, "run", "storage", "monitoring", "metrics", "data", "export"},
    "suggest": FOUNDATION | {"images", "deploy", "report"},
    "check": {*GROUND, "config", "run", "storage", "monitoring", "processes", "data", "images"},
    "evaluation": FOUNDATION | {"images", "check", "deploy", "export"},
    "get": {*GROUND, "run", "monitoring", "processes", "data", "images"},
    "planning": FOUNDATION | {"images", "teacher", "soft_labels", "students", "comparison"},
    "estimate": FOUNDATION | {"planning", "teacher", "students", "comparison"},
    "reading": {*GROUND, "config", "run", "storage", "images"},
    "pipeline": FOUNDATION
    | {"context", "images", "reading", "teacher", "soft_labels", "students", "comparison", "report", "deploy"}
    | {"planning", "estimate", "engines"},
    "updating": {*GROUND, "config", "run", "monitoring", "pipeline"},
    "tools": FOUNDATION | {"context", "students", "pipeline", "get"},
}
"""Each layer, and the layers that it may import, from the ground up. The command line may import all of them."""

STAGES = ("images", "teacher", "soft_labels", "students", "comparison", "export", "report")
TOP = {"cli", "__main__", ""}
HEAVY = {"torch", "timm", "torchvision", "safetensors", "huggingface_hub"}


@cache
def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@cache
def imports(path: Path, *, top_level_only: bool = False) -> frozenset[str]:
    """Full names of what a module imports, functions' own imports included unless told otherwise."""
    tree = ast.parse(path.read_text("utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def own(path: Path, **options: bool) -> frozenset[str]:
    """Modules of Potstill that a module imports, without the package's name."""
    names = {name.removeprefix("potstill.") for name in imports(path, **options) if name.startswith("potstill")}
    return frozenset(name for name in names if name in modules())


MODULES = modules()


def layer_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_is_in_a_layer() -> None:
    assert {layer_of(module) for module in MODULES} == LAYERS.keys() | TOP


@pytest.mark.parametrize("module", sorted(m for m in MODULES if layer_of(m) not in TOP))
def test_a_layer_imports_only_what_it_stands_on(module: str) -> None:
    layer = layer_of(module)
    used = {layer_of(name) for name in own(MODULES[module])} - {layer}
    if module == layer:  # the package's own docstring and lazy names
        used -= {""}
    assert used <= LAYERS[layer], f"{module} imports {sorted(used - LAYERS[layer])}"


def test_layers_stand_on_the_ones_above_them_in_the_list() -> None:
    below: set[str] = set()
    for layer, stands_on in LAYERS.items():
        assert stands_on <= below, layer
        below.add(layer)


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_a_layer_says_what_is_in_it(layer: str) -> None:
    text = ast.get_docstring(ast.parse(MODULES[layer].read_text("utf-8")))
    assert text is not None
    if MODULES[layer].name == "__init__.py":
        assert "mports" in text, f"{layer}/__init__.py does not say what it may import"


@cache
def _reachable(start: str) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += own(MODULES[name])
    return seen


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("report", "export")])
def test_no_stage_reaches_another_through_others(stage: str) -> None:
    reached = {layer_of(name) for module in MODULES if layer_of(module) == stage for name in _reachable(module)}
    assert reached & {*STAGES, "pipeline"} == {stage}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m == "images" or m.startswith("images.")))
def test_images_know_no_model(module: str) -> None:
    reached = set().union(*(imports(MODULES[name]) for name in _reachable(module)))
    assert {name.partition(".")[0] for name in reached} & HEAVY == set()


def test_there_are_no_circles() -> None:
    for name, path in MODULES.items():
        for used in own(path, top_level_only=True) - {name, ""}:
            assert name not in _reachable_at_import(used), f"{name} and {used} import each other"


@cache
def _reachable_at_import(start: str) -> set[str]:
    seen, todo = set[str](), [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += own(MODULES[name], top_level_only=True) - {""}
    return seen


@pytest.mark.parametrize(
    "code",
    [
        "import potstill",
        "import potstill.config.load, potstill.run.folder, potstill.errors, potstill.images.stage",
        "from potstill.cli import run; run(['--help'])",
        "from potstill.cli import run; run(['distill', '--help'])",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(code: str) -> None:
    check = f"{code}\nimport sys; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("words", [["distill", "nowhere"], ["distill", "photos", "--classes", "dics,ring"]])
def test_photos_are_read_before_torch_is_imported(words: list[str], photos: Path) -> None:
    """A mistake in them is said at once, and what was understood is on the screen while torch is imported."""
    code = f"from potstill.cli import run; import sys; sys.exit(run({words}) != 2 or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=photos.parent, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_run_that_does_not_exist_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    commands = ["predict R x.jpg", "evaluate R x", "update R x", "export R --to onnx", "suggest R", "controls R"]
    commands += ["forecast R", "serve R", "open R", "report R"]
    code = (
        "from potstill.cli import run; import sys\n"
        f"for words in {commands}:\n"
        "    assert run(words.split()) == 2, words\n"
        "    assert 'torch' not in sys.modules, words"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().count("There is no run folder R") == len(commands)


def test_the_public_names_are_there() -> None:
    assert set(potstill.__all__) <= set(dir(potstill))
    for name in potstill.__all__:
        assert getattr(potstill, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = potstill.distil
