"""The browser's runtime comes from npm, pinned; what goes wrong is told."""

import importlib
import io
import tarfile
from pathlib import Path

import pytest

from potstill.errors import ExportError
from potstill.export.web.runtime import FILES, get_runtime, unpack
from potstill.monitoring.progress import Reporter

module = importlib.import_module("potstill.export.web.runtime")  # the package has a function of this name


def test_a_missing_npm_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"--to web needs npm .*apt-get install npm"):
        get_runtime(Reporter(quiet=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["echo no network >&2; exit 1", "exit 0"])
def test_an_npm_that_fails_is_told(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module.shutil, "which", lambda name: str(npm))
    with pytest.raises(ExportError, match=r"npm could not get onnxruntime-web 1\.\d+\.\d+"):
        get_runtime(Reporter(quiet=True))


def test_another_archive_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in FILES:
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ExportError, match=r"(?s)not the one that Potstill was written for.*Nothing was written"):
        unpack(buffer.getvalue(), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_is_in_the_cache_is_not_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / f"{module.PACKAGE}-{module.VERSION}"
    folder.mkdir()
    for target in FILES.values():
        (folder / target).write_bytes(b"x")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert get_runtime(Reporter(quiet=True)) == folder
