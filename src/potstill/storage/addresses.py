"""Addresses such as `s3://bucket/photos`."""

import re
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import ConfigError

BACKENDS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "memory": "fsspec"}
"""The schemes that are understood, and the package that each needs."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?!/)(.*)", re.DOTALL)
"""At least two letters: `C:/photos` is a path. A `Path` has made one slash of two."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place in object storage."""

    scheme: str
    key: str
    """Bucket and path, with single slashes between the parts."""

    @classmethod
    def of(cls, path: Path | str) -> "Address | None":
        """The address that is written there; None for a path of this machine.

        Raises:
            ConfigError: a scheme that is not understood, no bucket, or an address with a password or a query in it.
        """
        found = _ADDRESS.fullmatch(str(path))
        if found is None:
            return None
        scheme, rest = found[1].lower(), found[2].strip("/")
        if scheme not in BACKENDS:
            known = ", ".join(f"{name}://" for name in BACKENDS)
            raise ConfigError(f"{scheme}:// is not a kind of storage that Potstill reads. It reads {known}.")
        if "@" in rest.partition("/")[0]:
            # The address would be written to config.toml and to the log; and so would this message.
            raise ConfigError(
                f"A {scheme}:// address must not hold a user or a password. Leave out what is before @. Credentials "
                "come from the environment, as for every program that uses this storage."
            )
        if "?" in rest:
            raise ConfigError(
                f"A {scheme}:// address must not have a query, which is where signatures are. Leave it out."
            )
        parts = rest.split("/")
        if not rest or any(part in ("", ".", "..") for part in parts):
            raise ConfigError(
                f"{scheme}://{rest} is not an address. It has a bucket, then a path: {scheme}://bucket/path."
            )
        return cls(scheme, rest)

    @property
    def name(self) -> str:
        """Its last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "Address":
        """What it lies in; a bucket lies in itself."""
        return Address(self.scheme, self.key.rpartition("/")[0] or self.key)

    def __truediv__(self, name: str) -> "Address":
        return Address(self.scheme, f"{self.key}/{name}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"


def refuse_storage(path: Path | str, what: str) -> None:
    """Raise ConfigError where a path is an address, and `what` needs a folder of this machine."""
    if (address := Address.of(path)) is not None:
        raise ConfigError(f"{what} needs a folder on this machine, but {address} is in storage. Copy it here first.")
