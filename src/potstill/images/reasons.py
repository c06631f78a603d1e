"""Every reason for which a photo is left out or looked at twice: one code, one sentence, one place.

The codes stand in `provenance.jsonl`, in `rejected.csv`, in the report of `check`, and name the folders of the
quarantine. They are stable: tools may rely on them.
"""

from typing import Literal

Action = Literal["reject", "quarantine", "note", "retry"]
"""reject: the file is no photo. quarantine: a photo, but one that would harm. note: listed only.
retry: it could not be fetched today; the next `get` tries again."""

REASONS: dict[str, tuple[Action, str]] = {
    # the file itself (images/decode.py)
    "empty": ("reject", "the file has 0 bytes"),
    "unreadable": ("reject", "the operating system cannot read the file"),
    "not_image": ("reject", "a web page, JSON, SVG, PDF or something else that is no photo"),
    "corrupt": ("reject", "cut off or damaged: it cannot be decoded to its end"),
    "too_large": ("reject", "more bytes or pixels than allowed; such files are used to fill memories"),
    "too_small": ("quarantine", "the shorter side has too few pixels"),
    # the picture
    "thin": ("quarantine", "more than four times as long as wide"),
    "blank": ("quarantine", "one flat color"),
    "placeholder": ("quarantine", "a 'photo not available' picture, or the same file for three or more addresses"),
    # the same picture twice (images/duplicates.py)
    "identical": ("quarantine", "the same bytes are already in this class and split"),
    "duplicate": ("quarantine", "the same picture, re-saved, resized or mirrored, is already in this class and split"),
    "in_test": ("quarantine", "the same picture is in test (or, for train, in val), where it stays"),
    "two_classes": ("quarantine", "the same picture is in two classes; somebody has to decide"),
    # worth a look, never moved
    "wrong_extension": ("note", "the file is of another format than its name says"),
    "animated": ("note", "several frames; the first is used"),
    "odd_mode": ("note", "CMYK, 16-bit, palette or transparent; normalized to RGB when read"),
    "rotated": ("note", "stored on its side with an EXIF tag; turned upright when read"),
    "gray": ("note", "stored as color, shows no color"),
    "dark": ("note", "nearly black"),
    "bright": ("note", "nearly white"),
    "blurred": ("note", "hardly any edge"),
    "similar": ("note", "resembles another photo; perhaps the same, cropped"),
    "wrong_label": ("note", "the teacher, never trained on this photo, is sure of another class"),
    # fetching (images/download.py, images/client.py)
    "gone": ("reject", "the server says it has no such photo (404, 410)"),
    "refused": ("reject", "the server does not hand it out (401, 403, 451 and other 4xx)"),
    "opted_out": ("reject", "the server asks not to be used for machine learning (X-Robots-Tag)"),
    "license": ("reject", "the license is not among those asked for"),
    "address": ("reject", "the address, or a redirect, leads into a private network or to a forbidden port or scheme"),
    "redirects": ("reject", "redirected in a circle, too often, or from https to http"),
    "checksum": ("reject", "the bytes are not those the source promised"),
    "server_error": ("retry", "the server failed (5xx, 408, 425, 429), again and again"),
    "connection": ("retry", "no connection, or it broke off"),
    "timeout": ("retry", "too slow: no answer in time, or hardly any bytes per second"),
    "cut_short": ("retry", "the server sent fewer bytes than it promised"),
    "parked": ("retry", "too many failures in a row from this server; it was left alone"),
}


def action(code: str) -> Action:
    """What happens to a photo with this code."""
    return REASONS[code][0]


def meaning(code: str) -> str:
    """The sentence for people."""
    return REASONS[code][1]
