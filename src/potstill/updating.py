"""Adding photos to a finished run: a new run beside it, which trains on from there and is compared with it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.config.load import from_mapping, read_toml
from potstill.config.schema import Config, UpdateConfig
from potstill.errors import ConfigError
from potstill.monitoring.progress import Reporter
from potstill.pipeline import Result, distill, dry_run, find_update
from potstill.run.folder import Run
from potstill.run.layout import require_one_label

OF_THE_PHOTOS = {
    "images.labels": "",
    "images.path_column": "",
    "images.label_column": "",
    "images.split_column": "",
    "images.group_column": "",
    "images.per_class": 0,
}
"""Settings that are about the photos of a run, and not taken over for those that are added."""


def update(
    run: Path | str,
    photos: Path | str,
    *,
    settings: Mapping[str, Any] | None = None,
    into: Path | str | None = None,
    from_scratch: bool = False,
    test_share: float = 0.0,
    redo: bool = False,
    track: str | None = None,
    twin: bool = True,
    reporter: Reporter | None = None,
) -> Result:
    """Add photos to those of a finished run, train on, and compare the new student with the old one.

    The run stays as it is. Both students are compared on the test photos that the run has; none is added to them
    unless `test_share` says so, or the photos come with a test folder.

    Args:
        run: the finished run folder.
        photos: a photo folder, a table of labels or an archive, as for `distill`. Photos without labels do, too.
        settings: single settings by dotted name; all others are those of the run.
        into: the new run folder. When None, RUN-2 beside the run, or the next number.
        from_scratch: train from the starting weights instead of the run's students.
        test_share: share of the added photos that is set aside for testing.
        redo, track, twin, reporter: as for `distill`.
    Returns:
        The new run; `result.comparison.update` is what the photos brought.
    Raises:
        PotstillError: something that a user can fix, such as a run that is not finished or a class that it does not
            have; where possible before any long work.
    """
    config = update_config(run, settings or {}, from_scratch=from_scratch, test_share=test_share)
    target = find_update(Path(photos), config) if into is None else Path(into)
    if target.resolve() == Path(config.update.run):
        raise ConfigError(f"The new run folder cannot be that of the run itself, {run}. Choose another --run.")
    return distill(photos, config=config, run=target, redo=redo, track=track, twin=twin, reporter=reporter)


def plan_update(
    run: Path | str,
    photos: Path | str,
    *,
    settings: Mapping[str, Any] | None = None,
    from_scratch: bool = False,
    test_share: float = 0.0,
    twin: bool = True,
) -> Iterator[str]:
    """What `update` would do and take, without starting it. Raises as `update` does."""
    config = update_config(run, settings or {}, from_scratch=from_scratch, test_share=test_share)
    yield from dry_run(Path(photos), config, twin=twin)


def update_config(
    run: Path | str, settings: Mapping[str, Any], *, from_scratch: bool = False, test_share: float = 0.0
) -> Config:
    """The settings of an update: those of the run, where none is given.

    Raises:
        PotstillError: there is no such run.
        ConfigError: `update.run` names another run, or settings do not work.
    """
    opened = Run.open(run)
    if "update.run" in settings:
        raise ConfigError("The run that photos are added to is named first: `potstill update RUN PHOTOS`.")
    require_one_label(opened, "`potstill update`")
    before = read_toml(opened.path / "config.toml")
    if (external := before.teacher.external) and external.kind == "file":
        raise ConfigError(
            f"The teacher of {run} is {external.name}: soft labels of the photos that it has, and none of others.\n"
            "  Make soft labels of all photos, and run `potstill label` and `potstill distill` on all."
        )
    own: dict[str, Any] = {"update.run": str(opened.path.resolve())}
    own |= {"update.start": "weights"} if from_scratch else {}
    own |= {"update.test_share": test_share} if test_share else {}
    # Epochs that are asked for are those of the training, and not of one of which it is a share.
    own |= {"update.length": 1.0} if "student.epochs" in settings else {}
    return from_mapping({**OF_THE_PHOTOS, **own, **settings}, base=replace(before, update=UpdateConfig()))
