"""What can be refused at once is refused before photos are read, and leaves no folder behind; and what comes after."""

import types
import webbrowser
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import TINY, flags

import potstill
from potstill import pipeline
from potstill.cli import run as command
from potstill.config.load import from_mapping
from potstill.errors import ConfigError, WeightsError
from potstill.models.weights import Needed, require_weights
from potstill.run.command import typed
from potstill.tools import doctor


@pytest.fixture
def no_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a photo fails the test."""

    def read(*arguments: Any, **settings: Any) -> None:
        pytest.fail("photos were read")

    monkeypatch.setattr(pipeline, "collect_images", read)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"teacher.model": ["resnet18"], "teacher.weights": "auto"},
            "teacher resnet18 cannot be fetched(.|\n)*--teacher.weights FILE",
        ),
        ({"teacher.model": ["resnet18"], "teacher.weights": "package"}, "No weight package is known for 'resnet18'"),
        ({"teacher.weights": "nowhere.safetensors"}, "There is no weights file nowhere.safetensors"),
        (
            {"student.models": ["resnet18@32"], "student.weights": "hub"},
            "student resnet18 cannot be fetched(.|\n)*--students NAME=FILE(.|\n)*--student.weights none",
        ),
        ({"student.models": ["mobilenetv1_025@32=no.pth"]}, "There is no weights file no.pth"),
        (
            {"student.weights": "auto"},
            "no weights for mobilenetv1 (.|\n)*`--students NAME=FILE(.|\n)*`--student.weights none`",
        ),
        ({"teacher.model": ["mobilenetv1_025"], "teacher.weights": "hub"}, "`--teacher.weights none`"),
    ],
)
def test_missing_weights_are_noticed_first(
    settings: dict[str, Any], says: str, photos: Path, tmp_path: Path, no_photos: None
) -> None:
    with pytest.raises(WeightsError, match=says):
        potstill.distill(photos, settings={**TINY, **settings}, run=tmp_path / "runs" / "new")
    assert not list(tmp_path.iterdir())


def test_all_missing_weights_are_said_at_once(photos: Path, in_folder: Path, no_photos: None) -> None:
    """Not those of the student when those of the teacher have been found."""
    with pytest.raises(WeightsError, match="the teacher resnet18 and the student resnet34 cannot be fetched") as caught:
        potstill.distill(photos, teacher="resnet18", students=["resnet34"])
    assert str(caught.value).count("HF_ENDPOINT") == 1


def test_without_a_hub_the_typed_command_is_given_with_models_from_packages(
    photos: Path, in_folder: Path, no_photos: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["distill", str(photos), "--seeds", "2", "--dry-run"]) == 2
    said = capsys.readouterr().err
    typed = f"potstill distill {photos} --seeds 2 --dry-run"
    assert f"{typed} --teacher efficientnet_lite2 --students efficientnet_lite0\n" in said
    assert said.count(f"{typed} --teacher efficientnet_lite0 --students mobilenetv1_025 ") == 1
    assert "--seeds 1" not in said, "no option is given twice"
    assert command(["distill", str(photos), "--quick"]) == 2
    sooner = "--teacher efficientnet_lite0 --teacher.train probe --students efficientnet_lite0@128 --seeds 1 "
    assert f"  Much sooner, less accurate: potstill distill {photos} {sooner}" in capsys.readouterr().err
    assert command(["distill", str(photos), "--students", "resnet18"]) == 2
    assert "potstill distill PHOTOS --teacher efficientnet_lite2 --students efficientnet_lite0\n" in (
        capsys.readouterr().err
    )


def test_without_a_hub_other_commands_are_not_made_a_distill() -> None:
    both: list[Needed] = [("teacher", "resnet18", {}, "hub"), ("student", "resnet34", {}, "hub")]
    with typed(["update", "runs/old", "new"]), pytest.raises(WeightsError) as caught:
        require_weights(both)
    assert "the same command with --teacher efficientnet_lite2 --students efficientnet_lite0\n" in str(caught.value)
    assert "potstill distill" not in str(caught.value)


def test_a_dry_run_refuses_what_the_run_would_refuse(photos: Path, in_folder: Path, no_photos: None) -> None:
    settings = from_mapping({**TINY, "student.models": ["resnet18@32"], "student.weights": "hub"})
    with pytest.raises(WeightsError, match="weights of the student resnet18 cannot be fetched"):
        list(pipeline.dry_run(photos, settings))
    assert not list(in_folder.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--classes", "disc,nothing"],
        ["--recipe", "nowhere.toml"],
        ["--student", "mobilnetv3_small_100"],
        ["--track", "mlfow"],
        ["--lr", "7"],
    ],
)
def test_other_mistakes_are_noticed_first_too(
    words: list[str], photos: Path, tmp_path: Path, no_photos: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["distill", str(photos), "--run", str(tmp_path / "new"), *words]) == 2
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("student", "Did you mean 'students'?"),
        ("teachers", "Did you mean 'teacher'?"),
        ("epochs", "Did you mean settings={'student.epochs': …}?"),
        ("zzz", "It has: students, teacher, classes, labels, seeds"),
    ],
)
def test_unknown_keyword_arguments(name: str, says: str, photos: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        potstill.distill(photos, **{name: "x"})  # type: ignore[arg-type]
    assert f"distill() has no argument {name!r}." in str(caught.value)
    assert says in str(caught.value)


def test_a_finished_run_says_what_to_type_next(tiny_run: "potstill.Result", capsys: pytest.CaptureFixture[str]) -> None:
    from potstill.cli.runs import print_result

    print_result(tiny_run)
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(f"  potstill open {tiny_run.path} ")
    assert second.startswith(f"  potstill predict {tiny_run.path} photo.jpg ")
    assert third.startswith(f"  potstill export {tiny_run.path} --to onnx ")


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["distill", "my photos", "--quick"], "  potstill distill 'my photos' "),
        (["demo", "--quick"], "  potstill demo "),
        (["distill", "x", "--quick", "--run=a"], "  the same command without --quick, with another --run "),
        (["distill", "x"], "  potstill export "),
    ],
)
def test_a_smoke_test_ends_with_the_command_of_the_real_run(
    words: list[str], last: str, tiny_run: "potstill.Result", capsys: pytest.CaptureFixture[str]
) -> None:
    from potstill.cli.runs import print_result

    with typed(words):
        print_result(tiny_run)
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


@pytest.mark.parametrize("ssh", [False, True])
@pytest.mark.parametrize("no_browser", [False, True])
def test_open(
    ssh: bool,
    no_browser: bool,
    tiny_run: "potstill.Result",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    if ssh:
        monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    assert command(["open", str(tiny_run.path), *(["--no-browser"] if no_browser else [])]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tiny_run.report)
    assert opened == ([] if ssh or no_browser else [tiny_run.report.resolve().as_uri()])
    assert ("scp " in said.err) == (ssh and not no_browser)


def test_doctor_names_a_cuda_build_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for cuda, expected in (("12.8", True), (None, False)):
        monkeypatch.setattr(torch, "version", types.SimpleNamespace(cuda=cuda))
        rows = {row.name: row.value for row in doctor.devices()}
        assert ("torch" in rows) == expected
        assert not expected or ("CUDA 12.8" in rows["torch"] and "choose CPU" in rows["torch"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--restore", "all", "--purge", "all"], "--restore does not work with --purge"),
        (["--purge", "all", "--dry-run"], "--purge does not work with --dry-run"),
        (["--restore", "all", "--json"], "--restore does not work with --json"),
    ],
)
def test_check_refuses_flags_that_it_would_not_use(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["check", str(tmp_path), *words]) == 2
    assert says in capsys.readouterr().err


def test_flags_reach_the_run(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--student", "mobilenetv1_025", "--size", "48", "--epochs", "7", "--seeds", "2", "--weights", "none"]
    small = {name: value for name, value in TINY.items() if not name.startswith("student.") and name != "seeds"}
    assert command(["distill", str(photos), "--dry-run", *flags(small), *words]) == 0
    said = capsys.readouterr().out
    assert "Student: mobilenetv1_025 at 48 px, from scratch, 7 epochs" in said
    assert "with 2 seeds, distilled and alone" in said
