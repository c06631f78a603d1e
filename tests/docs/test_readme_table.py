"""The README's numbers are those of the runs kept in docs/results/."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_made_from_the_stored_results() -> None:
    command = [sys.executable, str(ROOT / "tools" / "readme_table.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: python tools/readme_table.py"


def test_there_are_results() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("<!-- results: ") >= 1
    assert "test photos" in text
