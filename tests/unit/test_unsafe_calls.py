"""Nothing in a photo, a run folder, a model file or an answer of a server can make Potstill run code.

The syntax tree of every source file is looked through.
`torch.load` and `np.load` run pickled code unless told not to, `eval` and shells run text.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("src", "benchmarks", "tools") for path in (ROOT / folder).rglob("*.py"))

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "xml", "telnetlib"}
"""Never imported: they run code from files, or follow what XML refers to."""

CALLS = {
    *("eval", "exec", "__import__", "compile", "os.system", "os.popen", "tempfile.mktemp", "shutil.unpack_archive"),
    *("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "subprocess.getoutput", "pty.spawn"),
    *("subprocess.getstatusoutput", "pandas.read_pickle", "ssl._create_unverified_context"),
}
"""Never called. `re.compile` and `torch.compile` are other names."""

NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "torch.hub.load_state_dict_from_url": ("weights_only", True),
    "jinja2.Environment": ("autoescape", True),
}
"""Calls that must have an argument."""

FORBIDDEN = (
    ("shell", True),
    ("allow_pickle", True),
    ("weights_only", False),
    ("verify", False),
    ("trust_remote_code", True),
)
"""Arguments that no call may have."""

METHODS = {"extractall", "load_module"}
"""Never called on anything: members of archives may lead out of the folder."""


def faults(code: str) -> list[str]:
    """What may not be in a source file."""
    return list(_faults(ast.parse(code)))


def _faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (f"{node.lineno}: import {name}" for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {fault}" for fault in _faults_of_call(node))


def _faults_of_call(call: ast.Call) -> Iterator[str]:
    name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name in CALLS:
        yield name
    if isinstance(call.func, ast.Attribute) and call.func.attr in METHODS:
        yield name
    for argument, value in FORBIDDEN:
        if given.get(argument) == str(value):
            yield f"{name}({argument}={value})"
    if name in NEEDED and given.get(NEEDED[name][0]) != str(NEEDED[name][1]):
        yield f"{name} without {NEEDED[name][0]}={NEEDED[name][1]}"
    if name.startswith("subprocess.") and call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr):
        yield f"{name} with a string"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_can_make_it_run_code(path: Path) -> None:
    assert faults(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from xml.etree import ElementTree",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
        "subprocess.run('ls')",
        "subprocess.run(f'ls {folder}')",
        "os.system('ls')",
        "archive.extractall(folder)",
        "jinja2.Environment(loader=loader)",
        "hub.download(name, trust_remote_code=True)",
    ],
)
def test_each_of_them_would_be_found(code: str) -> None:
    assert faults(code)


def test_what_is_safe_is_not_found() -> None:
    safe = "re.compile('a'); torch.load(p, weights_only=True); np.load(p, allow_pickle=False); subprocess.run(['ls'])"
    assert faults(safe) == []
