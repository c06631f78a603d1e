"""JPEG files: their segments, and whether all of the picture is there.

libjpeg fills what is missing with gray and goes on; Pillow drops its warnings. So the file itself is looked at:

- between its header and its end there are only markers that belong there, in their order;
- a progressive photo has all scans that its header promises;
- a photo that ends in the decoder's gray, or that has a long run of zeros, is decoded once more with other bytes behind
  its data, which must change nothing, and with other bytes at the end of its data, which must change something.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image, JpegImagePlugin

MAX_SEGMENTS = 20_000
"""Photos have some dozens; color profiles, some hundreds. Files with more are refused."""

MAX_SCANS = 100
"""Progressive photos have a dozen. Files with more are refused: each scan goes over the whole picture."""

_EXIF = b"Exif\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_APP1, _SOS, _EOI, _DRI, _DHT = 0xE1, 0xDA, 0xD9, 0xDD, 0xC4
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_RESTARTS = range(0xD0, 0xD8)
_BETWEEN_SCANS = {_DHT, _SOS, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)}
"""Markers that may follow a scan, beside the end."""

_ZEROS = bytes(32)
"""So many zeros hardly ever stand in a scan, unless a large part of the photo has one color."""
_FILLER = bytes(range(1, 128)) * 8
"""Any bytes that are not a marker: to a decoder that still needs data they are noise, to others nothing."""
_LAST = 64
"""Bytes at the end of a scan that are exchanged, to see whether they are used."""

_LARGE = 16_000_000
"""Pixels from which on a photo is compared at an eighth of its size, for the sake of memory."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The data of a scan, and its header's bytes."""

    header: bytes
    start: int
    end: int


@dataclass(slots=True)
class Structure:
    """What a JPEG file is made of, up to its end marker."""

    exif: list[bytes] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    segments: int = 0
    frame: int = 0
    """The marker of its frame header: 0xC0 baseline, 0xC2 progressive."""
    components: int = 0
    blocks: int = 0
    """Of 8 × 8 pixels."""
    restarts: bool = False
    """Whether restart markers are announced."""
    wrong_marker: int | None = None
    """A marker inside the picture's data that does not belong there."""
    without_app1: bytes = b""
    """The file without EXIF and XMP."""


def structure(data: bytes) -> Structure:
    """Read the segments. Never raises; a broken file has fewer of them."""
    found = Structure()
    kept, kept_from = [], 0
    place = 2
    while (segment := _segment(data, place)) is not None:
        found.segments += 1
        if found.segments > MAX_SEGMENTS:
            break
        marker, start, end = segment
        if marker == _EOI:
            break
        body = data[start:end]
        if marker == _APP1 and body.startswith((_EXIF, _XMP)):
            (found.exif if body.startswith(_EXIF) else found.xmp).append(body)
            kept.append(data[kept_from:place])
            kept_from = end
        elif marker in (*_SEQUENTIAL, _PROGRESSIVE) and len(body) > 5:
            found.frame, found.components = marker, body[5]
            height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            found.blocks = -(-height // 8) * -(-width // 8)
        elif marker == _DRI:
            found.restarts = any(body[:2])
        place = end
        if marker == _SOS:
            place = _scan_end(data, end, found)
            found.scans.append(Scan(body, end, place))
            if found.wrong_marker is not None:
                break
    found.without_app1 = b"".join([*kept, data[kept_from:]]) if kept else data
    return found


def damage(data: bytes, found: Structure, decoded: Image.Image) -> str | None:
    """What is wrong with a photo that the decoder accepted, None where nothing is.

    Args:
        decoded: as the decoder left it, not yet turned.
    """
    if found.wrong_marker is not None:
        return f"damaged: a marker (FF {found.wrong_marker:02X}) stands where it does not belong, inside the picture"
    if found.frame == _PROGRESSIVE:
        return None if _has_all_scans(found) else "cut off: the last scans of a progressive JPEG are missing"
    if found.frame not in _SEQUENTIAL or not found.scans:
        return None
    scan = found.scans[-1]
    zeros = {data.find(_ZEROS, scan.start, scan.end), data.rfind(_ZEROS, scan.start, scan.end)} - {-1}
    # Every restart marker is an end of its own.
    ends = {next((end for end, _ in _markers(data, place)), scan.end) for place in zeros}
    if _ends_in_gray(decoded):
        ends.add(scan.end)
    whole = _pixels(data) if ends else b""
    for end in sorted(ends):
        if whole != _pixels(data[:end] + _FILLER + data[end:]):
            return "cut off, or damaged: data for a part of the picture is missing"
        if (
            zeros
            and end - scan.start > _LAST
            and whole == _pixels(data[: end - _LAST] + _other(data, end) + data[end:])
        ):
            return "damaged: a part of the picture's data is zeros"
    return None


def _segment(data: bytes, place: int) -> tuple[int, int, int] | None:
    """(marker, start, end) of the body of the segment at a place, None where there is none."""
    while data[place : place + 2] == b"\xff\xff":  # fill bytes
        place += 1
    if place + 2 > len(data) or data[place] != 0xFF:
        return None
    marker = data[place + 1]
    if marker == _EOI:
        return marker, place, place
    length = int.from_bytes(data[place + 2 : place + 4])
    if length < 2 or place + 2 + length > len(data):
        return None
    return marker, place + 4, place + 2 + length


def _scan_end(data: bytes, place: int, found: Structure) -> int:
    """Where the data of a scan ends: at the next marker that is no restart. Notes a marker that does not belong."""
    restarts = 0
    for end, marker in _markers(data, place):
        if found.restarts and marker == _RESTARTS[restarts % 8] and restarts < found.blocks * max(1, found.components):
            restarts += 1
            continue
        if marker != _EOI and (marker not in _BETWEEN_SCANS or _segment(data, end) is None):
            found.wrong_marker = marker
        return end
    return len(data)


def _markers(data: bytes, place: int) -> Iterator[tuple[int, int]]:
    """(place, marker) of all FF bytes that are not data."""
    while (place := data.find(b"\xff", place)) >= 0 and place + 1 < len(data):
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker:
            yield place, marker
        place += 2


def _has_all_scans(found: Structure) -> bool:
    """Whether every coefficient of every component was sent to its last bit."""
    finest: dict[tuple[int, int], int] = {}
    components = set()
    for scan in found.scans:
        number = scan.header[0] if scan.header else 0
        if len(scan.header) < 4 + 2 * number:
            return True  # nothing is known of it
        first, last, bits = scan.header[1 + 2 * number : 4 + 2 * number]
        for component in scan.header[1 : 1 + 2 * number : 2]:
            components.add(component)
            finest.update({(component, k): bits & 15 for k in range(first, last + 1)})
    if len(components) < found.components:
        return False
    return all(finest.get((component, k)) == 0 for component in components for k in range(64))


def _ends_in_gray(decoded: Image.Image) -> bool:
    """Whether the last pixel has the color of blocks without data, in the modes that libjpeg gives."""
    last = decoded.getpixel((decoded.width - 1, decoded.height - 1))
    return all(value in (127, 128) for value in (last if isinstance(last, tuple) else (last,)))


def _other(data: bytes, end: int) -> bytes:
    """As many bytes as are exchanged, each another one, and none that could be a marker."""
    return bytes((byte ^ 0x55) & 0x7F for byte in data[end - _LAST : end])


def _pixels(data: bytes) -> bytes:
    """The pixels of a file; of a large one, at an eighth of its size."""
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if image.width * image.height > _LARGE:
            image.draft(None, (image.width // 8, image.height // 8))
        return image.tobytes()
    except (OSError, SyntaxError):
        return b""
