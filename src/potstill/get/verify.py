"""From the bytes that a server sent to the facts of a photo, or to the reason why it cannot be used."""

import hashlib
from dataclasses import dataclass

from potstill.images.decode import decode_thumbnail
from potstill.images.duplicates import fingerprint
from potstill.images.statistics import THUMBNAIL_SIDE, require_usable

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "HEIF": "heic"}
"""Where the lower-case name of the format is not the usual extension."""


@dataclass(frozen=True, slots=True)
class Photo:
    """What is known of a photo once it has been decoded."""

    sha256: str
    bytes: int
    width: int
    height: int
    mode: str
    format: str
    extension: str
    phash: int
    """64-bit hash of the picture (duplicates.py), and of its mirror image."""
    phash_mirrored: int


def verify(data: bytes, *, min_side: int) -> Photo:
    """Decode a photo to its end, at a reduced size, and check it.

    Args:
        data: the whole file.
        min_side: in pixels.
    Raises:
        BadPhotoError: the codes of `decode`, and `thin`, `blank`, `placeholder`.
    """
    decoded = decode_thumbnail(data, side=THUMBNAIL_SIDE, min_side=min_side)
    require_usable(data, decoded)
    marks = fingerprint(decoded.image)
    return Photo(
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        format=decoded.format,
        extension=EXTENSIONS.get(decoded.format, decoded.format.lower()),
        phash=marks.hash,
        phash_mirrored=marks.mirrored,
    )
