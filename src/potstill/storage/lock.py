"""One command at a time works on a run in storage: an object beside its files names the one that does."""

import json
import os
import platform
import time
import uuid
from dataclasses import dataclass, field

from potstill.errors import StorageError
from potstill.storage.addresses import Address
from potstill.storage.client import create, delete, read, time_of, write

NAME = ".potstill-lock"

RENEWED = 60.0
"""Seconds between two signs of life."""

STALE = 600.0
"""Seconds without a sign of life after which a lock is taken over, by the clock of the store."""


@dataclass(slots=True)
class Lock:
    """The right to write a run in storage."""

    run: Address
    _id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _renewed: float = 0.0

    @property
    def _address(self) -> Address:
        return self.run / NAME

    def take(self, now: float) -> str:
        """Take it, also from a command that has given no sign of life for `STALE` seconds.

        Args:
            now: the time in seconds, by the clock of the store.
        Returns:
            Whom it was taken from; "" where it was free.
        Raises:
            StorageError: another command has it, or it cannot be written.
        """
        self._renewed = time.monotonic()
        if create(self._address, self._text()):
            return ""
        holder, silent = self._holder(), now - time_of(self._address)
        if silent < STALE and not holder.is_dead_here:
            raise StorageError(
                f"{self.run} is being worked on by {holder}, last seen {max(silent, 0):.0f} s ago. Wait "
                f"for it, stop it, or take another --run. If it is gone, its lock ends after {STALE / 60:.0f} minutes."
            )
        delete(self._address)
        if not create(self._address, self._text()):  # another one was faster
            raise StorageError(f"{self.run} is being worked on by {self._holder()}. Wait, or take another --run.")
        return str(holder)

    def renew(self) -> None:
        """Give a sign of life where it is time to.

        Raises:
            StorageError: another command has taken the lock meanwhile.
        """
        if time.monotonic() - self._renewed < RENEWED:
            return
        self.require()
        write(self._address, self._text())
        self._renewed = time.monotonic()

    def require(self) -> None:
        """Raise StorageError where another command has taken the lock."""
        if (holder := self._holder()).id != self._id:
            raise StorageError(
                f"{self.run} was taken over by {holder}, because this command gave no sign of life for long. Nothing "
                "more is written there."
            )

    def release(self) -> None:
        """Give it back, if it is still ours."""
        if self._holder().id == self._id:
            delete(self._address)

    def _holder(self) -> "_Holder":
        return _Holder.of(read(self._address))

    def _text(self) -> bytes:
        return json.dumps({"id": self._id, "host": platform.node(), "process": os.getpid()}).encode()


@dataclass(frozen=True, slots=True)
class _Holder:
    """Whom a lock names."""

    id: str
    host: str
    process: int

    @classmethod
    def of(cls, data: bytes | None) -> "_Holder":
        try:
            values = json.loads(data or b"")
            return cls(str(values["id"]), str(values["host"]), int(values["process"]))
        except (ValueError, TypeError, KeyError):
            return cls("", "an unknown machine", 0)

    @property
    def is_dead_here(self) -> bool:
        """Whether it was a process of this machine that is no more."""
        if self.host != platform.node() or self.process <= 0 or os.name != "posix":
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def __str__(self) -> str:
        return f"{self.host} (process {self.process})"
