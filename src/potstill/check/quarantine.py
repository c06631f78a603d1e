"""`DATA/.quarantine/REASON/…`: where bad photos are kept until they are restored or purged.

Each move is logged before it is made, so that the log always knows where a photo came from.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.errors import DataError
from potstill.images.reasons import REASONS

NAME = ".quarantine"
LOG = "log.jsonl"


class Quarantine:
    """The quarantine of one photo folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.folder = self.root / NAME

    def put(self, path: str, reason: str, **facts: Any) -> Path:
        """Move a photo in. `path` is below the photo folder; its whole path is kept below the reason."""
        assert reason in REASONS, reason
        target = _free(self.folder / reason / path)
        target.parent.mkdir(parents=True, exist_ok=True)
        entry = {"path": path, "quarantine": target.relative_to(self.folder).as_posix(), "reason": reason}
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({**entry, **{k: v for k, v in facts.items() if v}}) + "\n")  # ASCII: names may be odd
        (self.root / path).rename(target)
        return target

    def photos(self, reason: str = "") -> Iterator[tuple[Path, dict[str, Any]]]:
        """Photos in quarantine and their lines in the log, of one reason or of all."""
        for entry in self._log():
            path = self.folder / entry["quarantine"]
            if path.is_file() and reason in ("", entry["reason"]):
                yield path, entry

    def counts(self) -> dict[str, int]:
        """Photos in quarantine by reason."""
        return dict(Counter(entry["reason"] for _, entry in self.photos()).most_common())

    def restore(self, reason: str = "") -> int:
        """Move photos back to where they were. Where another file has the name by now, a number is added.

        Raises:
            DataError: no photo is in quarantine for this reason.
        """
        self._known(reason)
        found = list(self.photos(reason))
        for path, entry in found:
            target = _free(self.root / entry["path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        self._tidy()
        return len(found)

    def purge(self, reason: str = "") -> int:
        """Delete permanently. Raises DataError as `restore` does."""
        self._known(reason)
        found = list(self.photos(reason))
        for path, _ in found:
            path.unlink()
        self._tidy()
        return len(found)

    def _known(self, reason: str) -> None:
        counts = self.counts()
        if reason and reason not in counts:
            have = ", ".join(f"{code} ({n:,})" for code, n in counts.items()) or "nothing"
            raise DataError(f"{self.folder} holds no photo for {reason!r}. It holds: {have}.")

    def _log(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            last: dict[str, dict[str, Any]] = {}
            for line in (self.folder / LOG).read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line cut off by a crash: its photo was not moved yet
                    entry = json.loads(line)
                    last[entry["quarantine"]] = entry
            yield from last.values()

    def _tidy(self) -> None:
        """Remove empty folders, and the log once nothing is left."""
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if self.folder.is_dir() and not any(self.photos()):
            (self.folder / LOG).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def _free(path: Path) -> Path:
    """The path itself, or one with a number before its extension where it is taken."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
