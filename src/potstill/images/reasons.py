"""Every reason for which a photo is left out or reported: one code, one sentence, one place.

The codes are used in `provenance.jsonl`, in `rejected.csv`, in the report of `check`, and name the folders of the
quarantine. They are stable: tools may rely on them.
"""

from typing import Literal

Action = Literal["reject", "quarantine", "note", "retry"]
"""reject: the file is not a usable photo. quarantine: a photo that would do harm. note: listed only.
retry: the download failed; the next `get` tries again."""

REASONS: dict[str, tuple[Action, str]] = {
    # the file itself (images/decode.py)
    "empty": ("reject", "the file has 0 bytes"),
    "unreadable": ("reject", "the operating system cannot read the file"),
    "not_image": ("reject", "not a photo but a web page, JSON, SVG, PDF or another kind of file"),
    "needs_extra": ("reject", "a photo in a format that only an extra reads, such as HEIC; the detail names it"),
    "corrupt": ("reject", "cut off or damaged: a part of the picture is missing"),
    "too_large": ("reject", "more bytes or pixels than allowed; decompression bombs look like this"),
    "too_small": ("quarantine", "the shorter side has too few pixels"),
    # the picture
    "thin": ("quarantine", "one side is more than four times as long as the other"),
    "blank": ("quarantine", "one flat color"),
    "placeholder": ("quarantine", "a 'photo not available' picture, or the same file at three or more addresses"),
    # the same picture twice (images/duplicates.py)
    "identical": ("quarantine", "the same bytes are already in this class and split"),
    "duplicate": ("quarantine", "the same picture, re-saved, resized or mirrored, is already in this class and split"),
    "in_test": ("quarantine", "the same picture is in test, or in val for a training photo; that one is kept"),
    "group_in_test": ("quarantine", "a photo without a label, of a group that is in test or val"),
    "in_run": ("note", "the run that photos are added to has the same bytes"),
    "two_classes": ("quarantine", "the same picture is in two classes, or has other labels; decide which are right"),
    # worth reviewing, never moved
    "wrong_extension": ("note", "the file has another format than its extension says"),
    "animated": ("note", "several frames; the first one is used"),
    "odd_mode": ("note", "CMYK, 16-bit, palette or transparent; converted to RGB when read"),
    "rotated": ("note", "rotated by an EXIF tag; turned upright when read"),
    "gray": ("note", "stored in color, but shows none"),
    "dark": ("note", "nearly black"),
    "bright": ("note", "nearly white"),
    "blurred": ("note", "hardly any edges"),
    "similar": ("note", "resembles another photo; perhaps the same one, cropped"),
    "wrong_label": ("note", "a teacher head that was not trained on this photo finds another class more probable"),
    # the download (get/download.py, get/client.py)
    "gone": ("reject", "the server has no such photo (404, 410)"),
    "refused": ("reject", "the server refuses access (401, 403, 451 and other 4xx)"),
    "opted_out": ("reject", "the server opts out of machine learning (X-Robots-Tag)"),
    "license": ("reject", "the license is not among those requested"),
    "address": ("reject", "the address, or a redirect, leads into a private network or to a forbidden port or scheme"),
    "redirects": ("reject", "redirected in a loop, too often, or from https to http"),
    "checksum": ("reject", "the checksum is not the one that the source published"),
    "server_error": ("retry", "the server failed (5xx, 408, 425, 429) on every try"),
    "connection": ("retry", "the connection failed or was lost"),
    "timeout": ("retry", "too slow: no response in time, or hardly any bytes per second"),
    "cut_short": ("retry", "the server sent fewer bytes than it announced"),
    "parked": ("retry", "not tried: this server had failed too often in a row"),
}


def action(code: str) -> Action:
    """What happens to a photo with this code."""
    return REASONS[code][0]


def meaning(code: str) -> str:
    """What the code means, in a sentence."""
    return REASONS[code][1]
