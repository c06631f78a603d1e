"""An environment of its own for tools that are missing or clash: made by pip from local wheels, without a network."""

import dataclasses
import subprocess
import zipfile
from pathlib import Path

import pytest
from tests.export.conftest import quiet

from potstill.errors import ExportError
from potstill.export import environments
from potstill.export.environments import environment_folder, install_command, python_for, requirements
from potstill.export.formats.registry import FORMATS

LOOK = "import fake_tool, markupsafe, numpy, potstill; print(fake_tool.NAME, markupsafe.OLD, potstill.__file__)"
FAKE = dataclasses.replace(FORMATS["litert"], extra="export-fake", modules=("fake_tool",), packages=("fake-tool",))


def wheel(folder: Path, name: str, version: str, code: str, requires: str = "") -> None:
    """The smallest package that pip installs."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{module}/__init__.py": code,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source, and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environments, "requires", lambda _: ['fake-tool>=1; extra == "export-fake"', "numpy"])
    return folder


def test_it_has_what_is_here_and_what_the_tool_wants_instead(index: Path) -> None:
    """The tool wants a package that is older than the one here: the older one shadows it there, and only there."""
    import markupsafe

    wheel(index, "fake-tool", "1.5", "NAME = 'fake'", requires="markupsafe==0.0.1")
    wheel(index, "markupsafe", "0.0.1", "OLD = True")
    python = python_for(FAKE, quiet())
    done = subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own = Path(environments.__file__).parents[1] / "__init__.py"
    assert done.stdout.split() == ["fake", "True", str(own)]
    assert not hasattr(markupsafe, "OLD")
    for path in index.iterdir():
        path.unlink()
    assert python_for(FAKE, quiet()) == python, "made once"


def test_what_pip_says_is_passed_on(index: Path) -> None:
    with pytest.raises(ExportError, match=r"could not be made:[\s\S]*No matching distribution found for fake-tool>=1"):
        python_for(FAKE, quiet())
    assert not (environment_folder(FAKE) / environments.READY).exists()


def test_the_command_and_the_extras() -> None:
    names = {line.partition(">")[0] for line in requirements("export-litert")}
    assert names == {"litert-torch", "ai-edge-litert", "ai-edge-quantizer"}
    words = install_command(Path("python"), requirements("export-executorch"))
    assert words == ["python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "executorch>=1.5"]
