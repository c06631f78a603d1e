"""What a larger input size costs and brings: measured pairs, and the command for the size that was not tried."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports import edit, grow, slim_copy
from tests.support import edit_settings

import potstill
from potstill.cli import app, runs  # noqa: F401  registers distill
from potstill.report.input_size import input_size_notes
from potstill.report.page import render
from potstill.report.read import RunFiles
from potstill.run.folder import Run


@pytest.fixture
def run(tiny_run: "potstill.Result", tmp_path: Path) -> Run:
    """Two students on 300 test photos, from a teacher at 64 px."""
    run = slim_copy(tiny_run.path, tmp_path / "run")
    grow(run, classes=["ant", "bee", "cow"], students=2, photos=300)
    return run


def change(run: Run, *students: dict[str, Any]) -> None:
    """Other values of the first students; the others are left out."""

    def edited(comparison: dict[str, Any]) -> None:
        del comparison["students"][len(students) :]
        for student, values in zip(comparison["students"], students, strict=True):
            student.update(values)

    edit(run.comparison / "comparison.json", edited)


def test_two_sizes_of_a_model_have_their_difference_and_cost(run: Run) -> None:
    small = {"model": "m", "size": 32, "macs": 100}
    change(run, {**small, "size": 96, "macs": 280}, small)
    (note,) = input_size_notes(RunFiles(run))
    files = RunFiles(run)
    labels = files.predictions.labels
    for arm in ("distilled", "alone"):
        right = [np.mean(files.predictions.logits(f"student-{n}/{arm}").argmax(-1) == labels) for n in (0, 1)]
        assert f"{arm} {100 * (right[0] - right[1]):+.1f} points (" in note
    assert note.startswith("m at 96 instead of 32 px: ")
    assert note.endswith("for 2.8 times the MACs.")
    assert note in render(files).replace("\u00a0", " ").replace("&#39;", "'")


def test_other_models_and_the_same_size_are_no_step(run: Run) -> None:
    change(run, {"model": "a", "size": 32}, {"model": "b", "size": 64})
    assert input_size_notes(RunFiles(run)) == []
    change(run, {"model": "a", "size": 32}, {"model": "a", "size": 32})
    assert input_size_notes(RunFiles(run)) == []


def test_the_next_size_is_a_command_that_parses(run: Run) -> None:
    change(run, {"model": "mobilenetv1_025", "size": 40, "pretrained": True, "pretrained_size": 224})
    (note,) = input_size_notes(RunFiles(run))
    assert (
        "was trained at 40 px, its starting weights at 224 px. What 64 px bring, for about 2.6 times the MACs" in note
    )
    words = shlex.split(note[note.index("potstill ") :])
    assert words[-2:] == ["--students", "mobilenetv1_025@64"]
    assert Path(words[words.index("--recipe") + 1]).is_file()
    app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_weights_of_a_file_are_named_again(run: Run) -> None:
    edit_settings(run.path, lambda text: text.replace("mobilenetv1_025@32", "mobilenetv1_025@40=w.safetensors"))
    change(run, {"model": "mobilenetv1_025", "size": 40, "pretrained": True, "pretrained_size": 224})
    assert input_size_notes(RunFiles(run))[0].endswith("--students mobilenetv1_025@64=w.safetensors")


@pytest.mark.parametrize(
    "values",
    [
        {"size": 40, "pretrained": False, "pretrained_size": 224},
        {"size": 40, "pretrained": True, "pretrained_size": None},
        {"size": 40, "pretrained": True, "pretrained_size": 40},
        {"size": 64, "pretrained": True, "pretrained_size": 224},  # larger than what the photos were packed for
    ],
)
def test_no_size_is_proposed_without_weights_or_pixels_for_it(run: Run, values: dict[str, Any]) -> None:
    change(run, {"model": "mobilenetv1_025", **values})
    assert input_size_notes(RunFiles(run)) == []
