"""Copies of a test photo in train are found however they were changed; different photos are not."""

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from potstill.images import near_hashes
from potstill.images.duplicates import Fingerprint, fingerprint, same_pairs, same_picture
from potstill.images.near_hashes import MAX_BITS, all_compared, indexed, near_pairs


def scene(seed: int, side: int = 240) -> Image.Image:
    """A picture with about the spectrum of photographs: amplitude falls a little faster than 1 / frequency."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    frequency[0, 0] = np.inf
    channels = []
    for _ in range(3):
        waves = np.fft.ifft2(np.exp(2j * np.pi * generator.random((side, side))) / frequency**1.3).real
        channels.append(waves)
    shared = channels[0]
    array = np.stack([0.8 * shared + 0.2 * c for c in channels], -1)
    array = (array - array.min()) / (array.max() - array.min())
    return Image.fromarray((255 * array).astype(np.uint8))


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=35)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    edge = round(0.015 * image.width)
    return image.crop((edge, edge, image.width - edge, image.height - edge))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": recompressed,
    "resized": lambda image: image.resize((97, 97), Image.Resampling.LANCZOS),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "cropped 3 %": cropped,
    "mirrored": ImageOps.mirror,
}


def match(one: Fingerprint, other: Fingerprint) -> bool:
    """As `collect` decides: near by hash, plain or mirrored, and alike by thumbnail."""
    ours = np.array([one.hash], np.uint64)
    near = any(list(near_pairs(ours, np.array([h], np.uint64), max_bits=10)) for h in (other.hash, other.mirrored))
    return near and same_picture(one.thumb, other.thumb)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found(change: Callable[[Image.Image], Image.Image]) -> None:
    missed = [n for n in range(20) if not match(fingerprint(change(scene(n))), fingerprint(scene(n)))]
    assert missed == []


def test_different_pictures_are_not_taken_for_copies() -> None:
    prints = [fingerprint(scene(n)) for n in range(60)]
    pairs = [(a, b) for a in range(60) for b in range(a) if match(prints[a], prints[b])]
    assert pairs == []


def test_flat_pictures_with_different_content_are_not_copies() -> None:
    """Machine parts: the same background and outline, a small difference that is the label."""
    good = Image.new("RGB", (200, 200), (90, 90, 90))
    defect = good.copy()
    defect.paste((20, 20, 20), (60, 60, 110, 75))
    assert not match(fingerprint(defect), fingerprint(good))


def part(number: int) -> Image.Image:
    """One of many parts under one camera: the same outline, pattern and light, and faint spots of its own."""
    own = np.random.default_rng(number)
    coarse = np.random.default_rng(0).normal(130, 40, (12, 12)) + own.normal(0, 4, (12, 12))
    smooth = Image.fromarray(coarse.astype(np.float32)).resize((300, 300), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth) * own.uniform(0.85, 1.1) + own.normal(0, 2, (300, 300))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


def pairs(pictures: list[Image.Image], max_bits: int = 10) -> set[tuple[int, int]]:
    prints = [fingerprint(picture) for picture in pictures]
    hashes, mirrored = (np.array([getattr(p, name) for p in prints], np.uint64) for name in ("hash", "mirrored"))
    found = list(same_pairs(hashes, mirrored, np.array([p.thumb for p in prints]), max_bits=max_bits))
    assert len(found) == len({(a, b) for a, b, _ in found}), "each once"
    return {(a, b) for a, b, _ in found}


def test_parts_that_all_look_alike_are_not_copies_but_their_copies_are() -> None:
    parts = [part(number) for number in range(60)]
    assert sum(match(fingerprint(parts[0]), fingerprint(other)) for other in parts[1:]) > 5, "two alone would be copies"
    small = parts[7].resize((150, 150), Image.Resampling.BICUBIC)
    assert pairs([*parts, small]) == {(7, 60)}


def test_a_few_copies_of_one_scene_are_all_found() -> None:
    scenes_ = [scene(number) for number in range(40)]
    again = [scene(3).resize((w, w * 3 // 4)) for w in (120, 140, 160)]
    assert pairs([*scenes_, *again]) == {(3, 40), (3, 41), (3, 42), (40, 41), (40, 42), (41, 42)}
    assert pairs([*scenes_, *again], max_bits=-1) == set()


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    changed=st.integers(0, 24),
    max_bits=st.integers(0, MAX_BITS),
)
@settings(max_examples=40)
def test_the_index_finds_what_comparing_all_finds(
    seed: int, sizes: tuple[int, int], changed: int, max_bits: int
) -> None:
    generator = np.random.default_rng(seed)
    left = generator.integers(0, 2**64, sizes[0], dtype=np.uint64)
    # Half of them differ from one of the others in a few bits, and some bits are changed twice.
    flips = np.bitwise_or.reduce(np.uint64(1) << generator.integers(0, 64, (changed + 1, len(left)), dtype=np.uint64))
    right = np.concatenate([left ^ flips, generator.integers(0, 2**64, sizes[1], dtype=np.uint64)])
    expected = sorted(
        (i, j, (int(a) ^ int(b)).bit_count())
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if (int(a) ^ int(b)).bit_count() <= max_bits
    )
    for search in (indexed, all_compared):
        found = [zip(*(part.tolist() for part in parts), strict=True) for parts in search(left, right, max_bits)]
        assert sorted(pair for parts in found for pair in parts) == expected, search.__name__


def test_many_hashes_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64)
    monkeypatch.setattr(near_hashes, "FEW", 300 * 300)
    monkeypatch.setattr(near_hashes, "indexed", lambda *_: pytest.fail("few hashes need no index"))
    assert sum(len(i) for i, _, _ in near_hashes.near_pairs(hashes, hashes, max_bits=10)) == 300
    monkeypatch.setattr(near_hashes, "indexed", lambda *_: iter([(np.arange(7),) * 3]))
    monkeypatch.setattr(near_hashes, "FEW", 300 * 300 - 1)
    assert sum(len(i) for i, _, _ in near_hashes.near_pairs(hashes, hashes, max_bits=10)) == 7


def scenes(data: Path) -> Path:
    """20 pictures: test/a/100.png, test/b/101.png, val, train, train and so on."""
    for number in range(100, 120):
        folder = data / ("test", "val", "train", "train")[(number - 100) // 2 % 4] / ("a", "b")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{number}.png")
    return data


def _rejected(run: Path) -> dict[str, str]:
    with (run / "1_images/rejected.csv").open(encoding="utf-8") as file:
        return {Path(row["path"]).name: row["code"] for row in csv.DictReader(file)}


def test_the_train_copy_is_left_out_and_the_test_photo_kept(tmp_path: Path, packer) -> None:
    data = scenes(tmp_path / "data")
    ImageOps.mirror(scene(100)).save(data / "train/a/near.png")  # test/a/100.png, mirrored
    shutil.copy(data / "test/b/101.png", data / "train/b/same.png")
    shutil.copy(data / "train/a/104.png", data / "train/a/twice.png")
    shutil.copy(data / "train/a/106.png", data / "train/b/elsewhere.png")
    store = packer(data, tmp_path / "run", size=64)
    rejected = _rejected(tmp_path / "run")
    assert rejected.pop("near.png") == "in_test"
    assert rejected.pop("same.png") == "in_test"
    assert rejected.pop("106.png") == rejected.pop("elsewhere.png") == "two_classes", (
        "nobody knows which label is right"
    )
    assert list(rejected.values()) == ["identical"]
    assert len(store.rows("test")) == 6


def test_near_copies_can_be_kept(tmp_path: Path, packer) -> None:
    data = scenes(tmp_path / "data")
    ImageOps.mirror(scene(100)).save(data / "train/a/near.png")
    packer(data, tmp_path / "run", size=64, duplicate_bits=-1)
    assert _rejected(tmp_path / "run") == {}
