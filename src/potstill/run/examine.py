"""`potstill doctor RUN`: every file of a run that has a hash or a checksum is read, and what is damaged is named."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import PotstillError
from potstill.run.files import REMOVE, REWRITTEN, read_json, read_toml_text
from potstill.run.folder import STAGES, Run
from potstill.run.integrity import damages, recorded
from potstill.wording import counted

_ADVICE = {"run.json": REWRITTEN, "inputs.json": "Remove its folder and run again."}


@dataclass(frozen=True, slots=True)
class Examination:
    """What was read of a run, and what is wrong with it."""

    run: str
    files: int
    bytes: int
    problems: tuple[str, ...]
    """One sentence for each damaged file: which, what is wrong, what to do."""
    unfinished: tuple[str, ...]
    """Stages of the pipeline that are not finished. Their files are checked when they are resumed."""

    def lines(self) -> list[str]:
        """For people."""
        read = f"{self.run}: {counted(self.files, 'file')}, {self.bytes / 1e6:,.1f} MB"
        lines = [f"{read}, {len(self.problems)} damaged:" if self.problems else f"{read}, all as they were written"]
        lines += [f"  {problem}" for problem in self.problems]
        if self.unfinished:
            lines.append(f"Not finished, and not checked: {', '.join(self.unfinished)}")
        return lines


def examine(path: Path) -> Examination:
    """Read all files of finished stages, and every JSON file and config.toml, of a run folder.

    Takes about a second per GB. Raises PotstillError where there is no run folder.
    """
    if not (path / "config.toml").is_file() and not (path / "run.json").is_file():
        Run.open(path)  # says that there is none
    hashed = recorded(path)
    loose = sorted({path / "config.toml", *path.rglob("*.json")} - hashed)
    files = [file for file in [*hashed, *loose] if file.is_file()]
    problems = [*damages(path), *_loose_damages(loose)]
    try:
        Run.open(path)
    except PotstillError as error:
        problems += [str(error)] if str(error) not in problems else []
    required = [name for name in STAGES if name != "6_export"]
    return Examination(
        run=str(path),
        files=len(files),
        bytes=sum(file.stat().st_size for file in files),
        problems=tuple(problems),
        unfinished=tuple(name for name in required if not (path / name / "done.json").is_file()),
    )


def _loose_damages(files: list[Path]) -> Iterator[str]:
    for file in files:
        try:
            if file.name == "config.toml":
                read_toml_text(file)
            elif file.name != "done.json":  # `damages` has read these
                read_json(file, _ADVICE.get(file.name, REMOVE))
        except PotstillError as error:
            yield str(error)
