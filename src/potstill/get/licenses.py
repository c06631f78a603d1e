"""License ids: one short id for the many ways in which sources write a license."""

import re
from collections.abc import Collection

OPEN = ("CC0", "PD", "CC-BY", "CC-BY-SA")
"""Kept by default: free for any use, at most with attribution and share-alike."""

NON_COMMERCIAL = ("CC-BY-NC", "CC-BY-NC-SA")
"""Added by --allow-nc."""

_VERSION = re.compile(r"(?<![\d.])([1-4]\.\d)(?![\d.])")


def license_id(text: str) -> str:
    """`CC-BY-SA-4.0`, `CC0`, `PD`, or "" for anything that is not clearly one of them.

    Args:
        text: a license URL, a short name ("CC BY-SA 4.0"), or a code ("cc-by-sa-4.0").
    """
    words = text.strip().lower().replace("_", "-")
    version = _VERSION.search(words)
    flat = re.sub(r"[^a-z0-9]+", "-", words)
    if "publicdomain-zero" in flat or re.search(r"\bcc-?0\b|\bcc-zero\b", flat):
        return "CC0"
    if "publicdomain" in flat or "public-domain" in flat or flat.strip("-") in ("pd", "pdm") or flat.startswith("pd-"):
        return "PD"
    kind = re.search(r"(?:^|-)(?:cc|licenses)-(by(?:-nc)?(?:-nd|-sa)?)(?:-|$)", flat)
    if not kind:
        return ""
    return f"CC-{kind[1].upper()}" + (f"-{version[1]}" if version else "")


def family(license: str) -> str:
    """The id without its version: `CC-BY-SA-4.0` → `CC-BY-SA`."""
    return _VERSION.sub("", license).rstrip("-")


def is_allowed(license: str, allowed: Collection[str]) -> bool:
    """Whether an id (from `license_id`) is among the families asked for; "any" allows all, also unknown ones."""
    return "any" in allowed or family(license) in allowed
