"""The photos of a run by name, read and described before anything slow: without torch, whose import takes seconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from potstill.config.load import from_mapping
from potstill.config.schema import Config
from potstill.images.adding import read_to_add
from potstill.images.earlier import EarlierPhotos
from potstill.images.folder import Folder
from potstill.images.selection import read_for_training
from potstill.images.summary import folder_lines
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.layout import comparison_path
from potstill.run.results import require_comparison
from potstill.storage.addresses import Address


def read_photos(data: Path, config: Config, runs: Path, say: Callable[[str], None]) -> Folder:
    """The photos to train on, or those to add to a run's.

    Args:
        runs: the folder of the runs; archives are unpacked beside them.
        say: is given the lines of `folder_lines`.
    Raises:
        PotstillError: they cannot be used.
    """
    config = with_absolute_paths(config)
    if config.update.run:
        earlier = Run.open(config.update.run)
        require_comparison(comparison_path(earlier))
        require_whole(earlier.path)
        folder = read_to_add(data, config.images, EarlierPhotos.of(earlier, config.update.test_share), runs=runs)
    else:
        folder = read_for_training(data, config.images, runs=runs)
    for line in folder_lines(folder, config.images):
        say(line)
    return folder


def runs_beside(run: Path | str | None) -> Path:
    """The folder of the runs, given one of them: for one in storage, and for none, `runs/`."""
    return Path("runs") if run is None or Address.of(run) is not None else Path(run).parent


def with_absolute_paths(config: Config) -> Config:
    """The config with the whole paths of its files, by which other commands find them from anywhere. A table of labels
    in the photo folder is found there."""
    paths = {
        "images.labels": config.images.labels,
        "external.class_map": config.external.class_map,
        "external.order": config.external.order,
    }
    found = {name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).is_file()}
    if external := config.teacher.external:
        found["teacher.model"] = str(replace(external, path=external.path.resolve()))
    return from_mapping(found, base=config)
