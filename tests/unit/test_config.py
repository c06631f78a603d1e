"""Settings: each documented once, kept through TOML, refused with the nearest name or the allowed range."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import potstill

from potstill.cli import app, run, runs  # noqa: F401  runs registers its commands
from potstill.cli.settings import combined, flag_of
from potstill.config.load import RENAMED, from_mapping, read_toml, settings, to_mapping, to_toml
from potstill.config.schema import Config
from potstill.errors import ConfigError

NAMES = [setting.name for setting in settings()]


def test_every_setting_is_documented_and_named_once() -> None:
    assert len(NAMES) == len(set(NAMES))
    for setting in settings():
        assert len(setting.text) > 8, setting.name
        assert setting.text.rstrip().endswith((".", ")", "…")), f"{setting.name}: {setting.text}"
    leaves = sum(
        len(dataclasses.fields(value)) if dataclasses.is_dataclass(value) else 1
        for value in (getattr(Config(), f.name) for f in dataclasses.fields(Config))
    )
    assert len(NAMES) == leaves, "settings() forgets none"


def test_every_setting_is_a_flag_exactly_once() -> None:
    text = potstill("distill", "--help-all").stdout
    flags = re.findall(r"(?<![\w-])--[a-z][\w.-]*", text)
    for name in NAMES:
        flag = flag_of(name)
        assert sum(f.rstrip(".") == flag for f in flags) >= 1, f"{flag} is not in potstill distill --help-all"
        rows = re.findall(rf"^\W*{re.escape(flag)}(?![\w.-])", text, re.MULTILINE)
        assert len(rows) == 1, f"{flag} has {len(rows)} entries in the help"


def test_defaults_survive_toml(tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_text(to_toml(Config()), "utf-8")
    assert read_toml(tmp_path / "all.toml") == Config()


@given(
    lr=st.floats(1e-6, 1) | st.just("auto"),
    epochs=st.integers(1, 10_000) | st.just("auto"),
    classes=st.lists(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8), max_size=4),
    seeds=st.integers(1, 99),
    flip=st.sampled_from(["none", "horizontal", "both"]),
)
def test_any_settings_survive_toml(tmp_path_factory, lr, epochs, classes, seeds, flip) -> None:
    values = {"student.lr": lr, "student.epochs": epochs, "images.classes": classes, "seeds": seeds, "views.flip": flip}
    config = from_mapping(values)
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_text(to_toml(config), "utf-8")
    assert read_toml(path) == config
    assert from_mapping(to_mapping(config)) == config


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("student.epoch", "student.epochs"),
        ("teachr.model", "teacher.model"),
        ("view.mix", "views.mix"),
        ("seed", "seeds"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"no setting {name!r}\. Did you mean {nearest!r}\?"):
        from_mapping({name: 1})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seeds", 0, "at least 1"),
        ("seeds", 1.5, "whole number"),
        ("seeds", True, "whole number"),
        ("seeds", "3", "whole number"),
        ("images.val_share", 0.0, r"\(0, 0.5\]"),
        ("images.val_share", 0.6, r"\(0, 0.5\]"),
        ("views.min_scale", float("nan"), r"\(0, 1\]"),
        ("views.flip", "sideways", '"none" or "horizontal" or "both"'),
        ("student.temperature", 0, "above 0"),
        ("student.temperature", "warm", "number or"),
        ("student.distill_weight", -1, "must be at least 0"),
        ("student.distill_weight", float("nan"), "must be at least 0"),
        ("student.batch_size", 1, "at least 2"),
        ("teacher.model", [], "at least one model"),
        ("teacher.model", [1], "text"),
        ("twin.label_smoothing", [0.0, 1.5], r"\[0, 0.9\]"),
        ("twin.length_shares", [1.0, 0.0], r"\(0, 1\]"),
        ("twin.length_shares", [3.0], r"\(0, 1\]"),
        ("twin.length_shares", [], "at least one share"),
        ("comparison.confidence", 95, r"\[0.5, 0.999\]"),
        ("machine.jobs", 0, "at least 1"),
        ("views.seed", -1, "at least 0"),
        ("budget.max_megabytes", float("inf"), "at least 0"),
    ],
)
def test_values_out_of_range_or_of_the_wrong_kind_are_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        from_mapping({name: value})
    assert name in str(caught.value), "the message names the setting"


def test_a_value_for_a_section_is_refused_with_a_setting_of_it() -> None:
    with pytest.raises(ConfigError, match=r"'twin' is a section, not a setting\. .* such as twin\.label_smoothing\."):
        from_mapping({"twin": 3})


def test_all_loss_weights_zero_is_refused() -> None:
    zero = {f"student.{name}_weight": 0 for name in ("task", "distill", "feature")}
    with pytest.raises(ConfigError, match="nothing would be learned"):
        from_mapping({"student": {k.partition(".")[2]: v for k, v in zero.items()}})


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("student = [", "utf-8")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize(("former", "now"), RENAMED.items())
def test_former_names_are_refused_with_the_one_of_today(former: str, now: str, tmp_path: Path) -> None:
    assert now in NAMES
    assert former not in NAMES
    section, _, leaf = former.partition(".")
    (tmp_path / "recipe.toml").write_text(f"[{section}]\n{leaf} = 1\n", "utf-8")
    says = f"the setting {former!r} is now called {now!r}."
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'recipe.toml'}: {says}")):
        read_toml(tmp_path / "recipe.toml")
    for flag in (f"--{former.replace('_', '-')}=1", f"--{former}"):
        with pytest.raises(ConfigError, match=re.escape(f"command line: {says}")):
            from_flags(flag, *([] if "=" in flag else ["1"]))


def test_messages_name_the_recipe_that_a_value_is_from(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[student]\nlr = 2.0\n", "utf-8")
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'r.toml'}: student.lr must be in (0, 1], got 2.0.")):
        read_toml(tmp_path / "r.toml")


def test_settings_that_only_fit_together_may_be_given_together() -> None:
    features_only = from_mapping({"student": {"task_weight": 0, "distill_weight": 0, "feature_weight": 1}})
    task_only = from_mapping({"student.feature_weight": 0, "student.task_weight": 1}, base=features_only)
    assert (task_only.student.feature_weight, task_only.student.task_weight) == (0, 1)


def given_flags(*words: str) -> dict[str, Any]:
    """What `potstill distill data WORDS` hands to the command."""
    _, bound, _ = app.parse_args(["distill", "data", *words], exit_on_error=False, print_error=False)
    return bound.arguments.get("settings", {})


def from_flags(*words: str, recipe: Path | None = None, weakest: dict[str, Any] | None = None) -> Config:
    return combined(given_flags(*words), recipe, weakest)


def test_flags_win_over_the_recipe_and_the_recipe_over_quick(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("seeds = 5\n[student]\nepochs = 7\n", "utf-8")
    config = from_flags("--student.epochs", "9", recipe=tmp_path / "r.toml", weakest={"seeds": 1, "views.count": 2})
    assert (config.seeds, config.student.epochs, config.views.count) == (5, 9, 2)


def test_finished_runs_config_can_be_used_as_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('data = "/photos"\n\nseeds = 2\n', "utf-8")
    assert read_toml(tmp_path / "config.toml").seeds == 2


RECIPE = """seeds = 5
[images]
classes = ["a", "b"]
[teacher]
model = ["resnet50"]
[student]
models = ["a"]
lr = 0.5
lr_factors = [2.0, 3.0]
crop_pct = 0.6
"""


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--seeds", "3"], "seeds", 3),
        (["--seeds=3"], "seeds", 3),
        (["--student.lr=auto"], "student.lr", "auto"),
        (["--student.lr=1"], "student.lr", 1.0),
        (["--student.lr-factors", "1", "--student.lr-factors", "0.33"], "student.lr_factors", (1.0, 0.33)),
        (["--student.lr-factors", "1"], "student.lr_factors", (1.0,)),
        (["--student.lr_factors=1", "--student.lr_factors=0.33"], "student.lr_factors", (1.0, 0.33)),
        (["--student.crop-pct", "auto"], "student.crop_pct", "auto"),
        (["--lr", "auto"], "student.lr", "auto"),
    ],
)
def test_a_flag_wins_over_the_recipe_even_with_the_defaults_value(
    words: list[str], name: str, value: object, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE, "utf-8")
    recipe = read_toml(tmp_path / "r.toml")
    config = from_flags(*words, recipe=tmp_path / "r.toml")
    assert config != recipe
    assert config == from_mapping({name: value}, base=recipe), "the others stay"


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--student.epoch", "--student.epochs"),
        ("--student.epochs-", "--student.epochs"),
        ("--student.lr-factor", "--student.lr-factors"),
        ("--stud.lr", "--student.lr"),
        ("--seed", "--seeds"),
        ("--student.lr.factors", "--student.lr-factors"),
        ("--student.no-models", "--student.models"),
    ],
)
def test_neither_prefixes_nor_unknown_flags_are_accepted(flag: str, nearest: str, capsys) -> None:
    assert run(["distill", "data", flag, "3"]) == 2
    said = capsys.readouterr().err
    assert f"Unknown option: {flag}" in " ".join(said.split())
    assert f"Did you mean {nearest}?" in " ".join(said.split())
