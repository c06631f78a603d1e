"""What lies in a folder of photos and is not used."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unused:
    """Files that are in the folder and are not used, together because of one reason."""

    name: str
    """Below the photo folder: a file, a folder with a slash at its end, or several names with commas."""
    files: int
    """How many files that are."""
    why: str
    """Part of a sentence: "not a photo by its name"."""
