"""The conditions under which accuracy is compared, and the photo folders that they need.

A regime is one table of docs/explanation/accuracy.md. Sets of more than MANY classes belong to `many-classes` alone,
all others to every other regime.
"""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.data.splits import unit_hash
from potstill.errors import ConfigError, DataError
from potstill.images.folder import list_photos, read_folder

MANY = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What a job knows of its photos, and what its student starts from."""

    labels: int = 0
    """Labels per class that are used; all other training photos are used without theirs. 0: all labels."""
    wrong: float = 0.0
    """Share of the training and validation photos, of each class, that lie in the folder of another class."""
    pool: bool = False
    """Whether there are photos without labels beside the labeled ones."""
    pretrained: bool = True

    @property
    def name(self) -> str:
        """For folders and messages: `20-labels`, `all-labels_pool`."""
        parts = [f"{self.labels or 'all'}-labels"]
        parts += [f"{round(100 * self.wrong)}-wrong"] if self.wrong else []
        parts += ["pool"] if self.pool else []
        parts += [] if self.pretrained else ["scratch"]
        return "_".join(parts)


REGIMES: dict[str, tuple[Conditions, ...]] = {
    "few-labels": (Conditions(labels=20),),
    "pool": (Conditions(pool=True),),
    "all-labels": (Conditions(),),
    "many-classes": (Conditions(),),
    "wrong-labels-10": (Conditions(wrong=0.1),),
    "wrong-labels-20": (Conditions(wrong=0.2),),
    "from-scratch": (Conditions(pretrained=False),),
    "label-efficiency": tuple(Conditions(labels=n) for n in (5, 10, 20, 50, 100, 0)),
}


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos to measure on: `folder/{train,test}/CLASS/*`, and perhaps a folder of photos without labels."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    unlabeled: Path | None = None

    def takes_part(self, regime: str) -> bool:
        """Whether this set belongs to a regime."""
        if (len(self.classes) > MANY) != (regime == "many-classes"):
            return False
        return regime != "pool" or self.unlabeled is not None


def open_set(text: str, pools: dict[str, Path], demo: Path) -> PhotoSet:
    """A set as the command line names it: NAME=FOLDER, NAME=FOLDER:CLASS,CLASS, or NAME=demo.

    Raises:
        ConfigError, DataError: it is none of these, or it has no train/ and test/ with these classes.
    """
    name, _, place = text.partition("=")
    path, _, wanted = place.partition(":")
    if not name or not path:
        raise ConfigError(f"--sets: {text!r} is not NAME=FOLDER, NAME=FOLDER:CLASS,CLASS or NAME=demo.")
    folder = Path(path)
    if path == "demo":
        from potstill.tools.demo import make_folder

        folder = make_folder(demo)
    found = read_folder(folder, classes=wanted.split(",") if wanted else ())
    if found.flat or not any(file.split == "test" for file in found.files):
        raise DataError(f"{folder} has no train/ and test/. Every regime of a set is tested on the same photos.")
    return PhotoSet(name, folder.resolve(), found.classes, pools.get(name))


def photo_folder(photos: PhotoSet, conditions: Conditions, built: Path) -> Path:
    """The folder to train on: the set's own, or one of links below `built` that is made anew."""
    if not conditions.wrong and not conditions.pool:
        return photos.folder
    target = built / f"{photos.name}_{conditions.name}"
    shutil.rmtree(target, ignore_errors=True)
    if conditions.wrong:
        link_with_wrong_labels(photos.folder, photos.classes, conditions.wrong, target)
    else:
        target.mkdir(parents=True)
        for split in ("train", "val", "test"):
            if (photos.folder / split).is_dir():
                (target / split).symlink_to(photos.folder / split)
    if conditions.pool:
        assert photos.unlabeled is not None
        (target / "unlabeled").symlink_to(photos.unlabeled.resolve())
    return target


def link_with_wrong_labels(folder: Path, classes: Sequence[str], share: float, target: Path, *, seed: int = 0) -> None:
    """Links to the photos of `folder` in which a share of train and val lies in the folder of another class.

    Of each class exactly this share is moved, rounded: the photos whose names have the lowest hashes, so a smaller
    share is a part of a larger one. Where to is drawn by the hash as well. Test photos keep their class.
    """
    of_class: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for split, name, path in list_photos(folder):
        if split in ("train", "val", "test") and name in classes and path is not None:
            of_class[split, name].append(path)
    for (split, name), paths in of_class.items():
        keys = {path: f"{split}/{path.relative_to(folder / split).as_posix()}" for path in paths}
        by_hash = sorted(paths, key=lambda path: unit_hash(keys[path], seed=seed, purpose="wrong label"))
        moved = set() if split == "test" else set(by_hash[: round(share * len(paths))])
        others = [other for other in classes if other != name]
        for path in paths:
            draw = unit_hash(keys[path], seed=seed, purpose="wrong class")
            place = target / split / (others[int(draw * len(others))] if path in moved else name)
            place.mkdir(parents=True, exist_ok=True)
            # Photos of two classes may have the same name, and a name must not tell the class it came from.
            (place / (hashlib.sha256(keys[path].encode()).hexdigest()[:16] + path.suffix)).symlink_to(path.resolve())
