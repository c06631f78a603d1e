"""Make photos with one label or two from photos with one each: two of them side by side, and a table of labels.

    python tools/pairs.py ANIMALS pairs --train 150 --val 100 --unlabeled 400 --test 300

ANIMALS is a folder with train/CLASS/ and test/CLASS/. Every photo is used once at most, and test photos for test only.
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from potstill.run.files import write_text

HALF = (128, 256)
"""Width and height of a half, in pixels."""


def main() -> None:
    """Write TARGET/N.jpg and TARGET/labels.csv."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("target", type=Path)
    for split in ("train", "val", "unlabeled", "test"):
        parser.add_argument(f"--{split}", type=int, default=0, help=f"photos of {split} to make")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True)
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["path", "labels", "split"])
    number = 0
    for source, splits in (("train", ("train", "val", "unlabeled")), ("test", ("test",))):
        photos = np.random.default_rng(0).permutation(sorted((arguments.photos / source).glob("*/*"))).tolist()
        for split in splits:
            for _ in range(getattr(arguments, split)):
                first, second = photos.pop(), photos.pop()
                _pair(first, second).save(arguments.target / f"{number}.jpg", quality=90)
                labels = "" if split == "unlabeled" else ";".join(sorted({first.parent.name, second.parent.name}))
                rows.writerow([f"{number}.jpg", labels, split])
                number += 1
    write_text(arguments.target / "labels.csv", buffer.getvalue())


def _pair(first: Path, second: Path) -> Image.Image:
    """The middle of both, side by side."""
    image = Image.new("RGB", (2 * HALF[0], HALF[1]))
    for place, path in enumerate((first, second)):
        with Image.open(path) as photo:
            image.paste(ImageOps.fit(photo.convert("RGB"), HALF), (HALF[0] * place, 0))
    return image


if __name__ == "__main__":
    main()
