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

STAGES = {"images.stage", "teacher.stage", "soft_labels.stage", "students.stage", "comparison.stage"}
TOP = {"cli", "__main__"}
ABOVE_THE_PIPELINE = {"curve", "demo"}
MAY_IMPORT_REPORT = {"cli", "report", "pipeline"}
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


def test_the_list_of_stages_is_that_of_the_pipeline() -> None:
    assert set(MODULES) >= STAGES
    assert own(MODULES["pipeline"]) >= STAGES


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_stages_do_not_import_stages(stage: str) -> None:
    assert own(MODULES[stage]) & (STAGES - {stage}) == set()


@cache
def _reachable(start: str) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += own(MODULES[name])
    return seen


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_stage_reaches_another_through_others(stage: str) -> None:
    assert _reachable(stage) & (STAGES | {"pipeline"}) == {stage}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m == "images" or m.startswith("images.")))
def test_images_know_no_model(module: str) -> None:
    reached = set().union(*(imports(MODULES[name]) for name in _reachable(module)))
    assert {name.partition(".")[0] for name in reached} & HEAVY == set()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_nobody_imports_the_command_line_and_only_the_top_the_report(module: str) -> None:
    head = module.partition(".")[0]
    if head not in TOP:
        assert not {name for name in own(MODULES[module]) if name.partition(".")[0] in TOP}
    if head not in MAY_IMPORT_REPORT:
        assert not {name for name in own(MODULES[module]) if name.partition(".")[0] == "report"}
    if head not in TOP | ABOVE_THE_PIPELINE:
        assert "pipeline" not in own(MODULES[module]) or module == ""


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


def test_the_public_names_are_there() -> None:
    assert set(potstill.__all__) <= set(dir(potstill))
    for name in potstill.__all__:
        assert getattr(potstill, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = potstill.distil
