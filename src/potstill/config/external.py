"""Teachers that are files: `teacher.model = "onnx:FILE"` or `"file:FILE"`."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, cast, get_args

from potstill.errors import ConfigError

Kind = Literal["onnx", "file"]


@dataclass(frozen=True, slots=True)
class External:
    """A teacher that is a file, used as it is."""

    kind: Kind
    """"onnx": an ONNX classifier; "file": soft labels."""
    path: Path

    @property
    def name(self) -> str:
        """As logs and reports call it: without its folder."""
        return f"{self.kind}:{PurePath(self.path).name}"

    def __str__(self) -> str:
        """The setting."""
        return f"{self.kind}:{self.path}"


def parse_external(name: str) -> External | None:
    """The file that the name of a teacher stands for; None for the name of a model. Raises ConfigError."""
    kind, colon, path = name.partition(":")
    if not colon or kind not in get_args(Kind):
        return None
    if not path:
        raise ConfigError(f"teacher.model: {name!r} names no file. Write {kind}:FILE.")
    return External(cast(Kind, kind), Path(path))
