"""Photo files of every format that is read, mutated: bits, lengths, chunks, headers, EXIF, profiles; and bombs."""

import functools
import io
import os
import random
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from tests.support import CLASSES, draw_photo
from tests.torture.cases import REFUSED, RIGHT, WRONG, Case, Outcome

from potstill.errors import PotstillError
from potstill.images import guard
from potstill.images.decode import decode
from potstill.images.errors import BadPhotoError

SECONDS, MEGABYTES = 2.0, 500
"""What one photo may take, unless it is large."""
LARGE = ("56 megapixels of one color", "63 transparent megapixels", "5 megapixels as text")
"""Decoded in a process of their own, with its limits."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")


def photo_cases(seed: int, home: Path) -> Iterator[Case]:
    """Each is a whole photo, changed in one to three ways, or a bomb."""
    number = 0
    while True:
        dice = random.Random(f"{seed} photos {number}")
        number += 1
        if dice.random() < 0.05:
            name = dice.choice(list(BOMBS))
            limits = (guard.SECONDS, guard.MEGABYTES) if name in LARGE else (SECONDS, MEGABYTES)
            yield Case(f"bomb: {name}", name, _decoded(BOMBS[name], *limits))
            continue
        kind, ways = dice.choice(FORMATS), [dice.choice(list(MUTATIONS)) for _ in range(dice.randint(1, 3))]
        make = functools.partial(_mutated, kind, ways, dice)
        yield Case(f"{kind}, {ways[0]}", f"{kind}: {', '.join(ways)}", _decoded(make))


def _decoded(
    make: Callable[[], bytes], most_seconds: float = SECONDS, most_megabytes: float = MEGABYTES
) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        path = folder / "photo"
        path.write_bytes(make())
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            signal.alarm(300)  # a child that hangs must not live on
            os._exit(_verdict(path, folder / "said"))
        _, status, usage = os.wait4(child, 0)
        seconds, megabytes = time.monotonic() - started, (usage.ru_maxrss - _own_kilobytes()) / 1024
        code = os.waitstatus_to_exitcode(status)
        said = (folder / "said").read_text("utf-8") if (folder / "said").is_file() else f"ended with {code}"
        processor = usage.ru_utime + usage.ru_stime  # of this photo, however busy the machine is
        if code not in (0, 2):
            return Outcome(WRONG, said)
        if processor > most_seconds or megabytes > most_megabytes:
            return Outcome(WRONG, f"{processor:.1f} s of the processor ({seconds:.1f} s), {megabytes:.0f} MB; {said}")
        return Outcome(RIGHT if code == 0 else REFUSED, said)

    return run


def _verdict(path: Path, said: Path) -> int:
    """0: decoded to an RGB picture; 2: refused; 1: anything else."""
    try:
        image = decode(path.read_bytes(), short_side=128).image
        image.load()
        said.write_text(f"{image.size}", "utf-8")
        return 0 if image.mode == "RGB" and min(image.size) > 0 else 1
    except BadPhotoError as error:
        said.write_text(str(error), "utf-8")
        return 2 if error.code and error.reason else 1
    except PotstillError as error:
        said.write_text(f"not a BadPhotoError: {error}", "utf-8")
        return 1
    except BaseException as error:
        said.write_text(f"{type(error).__name__}: {error}", "utf-8")
        return 1


def _own_kilobytes() -> float:
    """Memory that a forked child starts with."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


@functools.cache
def whole(kind: str) -> bytes:
    """A photo with EXIF and a profile, where the format has them."""
    image = draw_photo(CLASSES[0], 3, width=320, height=240)
    exif = Image.Exif()
    exif[274], exif[271], exif[306] = 6, "camera", "2026:11:26 10:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    more = {"exif": exif, "icc_profile": profile} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def _mutated(kind: str, ways: list[str], dice: random.Random) -> bytes:
    data = bytearray(whole(kind))
    for way in ways:
        data = bytearray(MUTATIONS[way](data, dice)) or bytearray(b"\0")
    return bytes(data)


def bit(data: bytearray, dice: random.Random) -> bytearray:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def header_bit(data: bytearray, dice: random.Random) -> bytearray:
    data[dice.randrange(min(len(data), 64))] ^= 1 << dice.randrange(8)
    return data


def header_number(data: bytearray, dice: random.Random) -> bytearray:
    """A length, offset or size of the first kilobyte becomes extreme."""
    place = dice.randrange(max(1, min(len(data), 1024) - 4))
    value = dice.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000, dice.getrandbits(32)])
    data[place : place + 4] = struct.pack(dice.choice("<>") + "I", value)
    return data


def cut(data: bytearray, dice: random.Random) -> bytearray:
    return data[: dice.randrange(1, len(data) + 1)]


def zeros(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data))
    length = min(dice.choice([8, 256, 4096]), len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def noise(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data))
    length = min(dice.choice([8, 256, 4096]), len(data) - start)
    data[start : start + length] = dice.randbytes(length)
    return data


def doubled(data: bytearray, dice: random.Random) -> bytearray:
    """A piece comes twice."""
    start = dice.randrange(len(data))
    piece = data[start : start + dice.choice([4, 64, 2048])]
    return data[:start] + piece + data[start:]


def removed(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.choice([1, 4, 64]) :]


def appended(data: bytearray, dice: random.Random) -> bytearray:
    return data + dice.randbytes(dice.choice([1, 100, 100_000]))


def other_start(data: bytearray, dice: random.Random) -> bytearray:
    """The header of one format before the data of another."""
    return bytearray(whole(dice.choice(FORMATS))[: dice.choice([4, 16, 200])]) + data[dice.choice([4, 16, 200]) :]


MUTATIONS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "a bit": bit,
    "a bit of the header": header_bit,
    "a number of the header": header_number,
    "cut": cut,
    "zeros": zeros,
    "noise": noise,
    "a piece twice": doubled,
    "a piece removed": removed,
    "more behind it": appended,
    "the start of another format": other_start,
}


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _pixel_bomb() -> bytes:
    return _png(60_000, 60_000, rows=zlib.compress(bytes(10_000_000), 9))


def _allowed_but_empty() -> bytes:
    return _png(8_000, 7_000, rows=zlib.compress(bytes(7_000 * (3 * 8_000 + 1)), 9))


def _text_bomb() -> bytes:
    rows = zlib.compress(bytes(64 * (3 * 64 + 1)))
    text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    return _png(64, 64, _chunk(b"zTXt", text), rows=rows)


def _profile_bomb() -> bytes:
    rows = zlib.compress(bytes(64 * (3 * 64 + 1)))
    return _png(64, 64, _chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(200_000_000), 9)), rows=rows)


def _many_texts() -> bytes:
    rows = zlib.compress(bytes(64 * (3 * 64 + 1)))
    return _png(64, 64, *[_chunk(b"tEXt", b"k%d\0" % n + b"x" * 1000) for n in range(50_000)], rows=rows)


def _frame_bomb() -> bytes:
    frame = Image.new("P", (2000, 2000))
    buffer = io.BytesIO()
    frame.save(buffer, "GIF", save_all=True, append_images=[frame] * 5, duration=10)
    data = buffer.getvalue()
    head = data[: data.index(b"!\xf9")]
    body = data[data.index(b"!\xf9") : -1]
    return head + body * 400 + b";"


def _tile_bomb() -> bytes:
    """A TIFF of strips of one row, each with an offset of its own."""
    buffer, image = io.BytesIO(), Image.fromarray(np.zeros((3000, 3000), np.uint8))
    image.save(buffer, "TIFF", tiffinfo={278: 1}, compression="tiff_deflate")
    return buffer.getvalue()


def _many_frames() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (64, 64)).save(buffer, "GIF")
    head = buffer.getvalue()[:-1]
    return head + (b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02L\x01\0") * 1_000_000 + b";"


def _many_chunks() -> bytes:
    rows = zlib.compress(bytes(64 * (3 * 64 + 1)))
    return _png(64, 64, _chunk(b"tEXt", b"") * 1_200_000, rows=rows)


def _many_segments() -> bytes:
    data = whole("JPEG")
    return data[:2] + b"\xff\xfe\0\2" * 4_000_000 + data[2:]


def _many_restarts() -> bytes:
    data = whole("JPEG")
    return data[:2] + b"\xff\xdd\0\4\0\1" + data[2:-2] + b"".join(b"\xff%c" % (0xD0 + n) for n in range(8)) * 900_000


def _many_scans() -> bytes:
    """The last scan of a progressive JPEG comes 3,000 times."""
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 3000), "gray").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 3000 + data[-2:]


def _many_strips() -> bytes:
    """Two million strips of no bytes."""
    count, head = 2_000_000, 8
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    place = head + 2 + 12 * 8 + 4
    tags += [(273, 4, count, place), (278, 3, 1, 1), (279, 4, count, place)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", head, len(tags)) + entries + bytes(4) + bytes(4 * count)


def _large_webp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (8000, 7900), (9, 99, 200, 40)).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def _plain_text() -> bytes:
    return b"P3 2200 2200 9\n" + b"1 " * (3 * 2200 * 2200 // 2) + b"2 " * (3 * 2200 * 2200 // 2)


def _ppm_bomb() -> bytes:
    return b"P6 60000 60000 255\n" + bytes(1000)


BOMBS: dict[str, Callable[[], bytes]] = {
    "3,600 megapixels in 10 kB": _pixel_bomb,
    "56 megapixels of one color": _allowed_but_empty,
    "200 MB of compressed text": _text_bomb,
    "200 MB of compressed profile": _profile_bomb,
    "50,000 texts": _many_texts,
    "2,400 frames": _frame_bomb,
    "3,000 strips": _tile_bomb,
    "a size without pixels": _ppm_bomb,
    "1,000,000 frames of a pixel": _many_frames,
    "1,200,000 parts": _many_chunks,
    "4,000,000 segments": _many_segments,
    "7,200,000 restarts": _many_restarts,
    "3,000 scans": _many_scans,
    "2,000,000 strips": _many_strips,
    "63 transparent megapixels": _large_webp,
    "5 megapixels as text": _plain_text,
}
