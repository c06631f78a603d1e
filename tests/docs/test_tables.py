"""The numbers of README and docs are those of the runs and benchmarks kept beside them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_made_from_the_stored_results() -> None:
    command = [sys.executable, str(ROOT / "tools" / "tables.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"run: python tools/tables.py\n{done.stdout}"


def test_every_kind_of_result_is_shown_somewhere() -> None:
    text = "".join(path.read_text("utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    for kind in ("results: ", "formats: ", "runtimes: ", "speed: speed/", "speed: photos/", "accuracy: "):
        assert f"<!-- {kind}" in text, kind
