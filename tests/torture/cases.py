"""What every part of the campaign shares: a numbered case, its outcome, and one command run in this process."""

import contextlib
import io
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.cli import run as run_command

RIGHT, REFUSED, WRONG = "right", "refused", "WRONG"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one case."""

    verdict: str
    """RIGHT: the result of an undisturbed run. REFUSED: one clear error. WRONG: anything else."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is done to Potstill."""

    name: str
    """What is done, for the table: cases of one name are counted together."""
    detail: str
    """What exactly, so that it can be done again."""
    run: Callable[[Path], Outcome]
    """Does it in an empty folder."""


Campaign = Callable[[int, Path], Iterator[Case]]
"""An endless sequence of cases, the same for the same seed; the folder is for what they share."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command ended with."""

    code: int
    printed: str
    errors: str

    @property
    def refused(self) -> bool:
        """Ended by one clear error."""
        return self.code == 2 and "Error: " in self.errors and "Traceback" not in self.errors


def potstill(arguments: Sequence[str | Path]) -> Answer:
    """The command line in this process. A traceback is kept as text, with exit code 1, as Python has it."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = run_command([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception:
            code = 1
            errors.write(traceback.format_exc())
    return Answer(code, out.getvalue(), errors.getvalue())


def judged(answer: Answer, *, as_undisturbed: bool) -> Outcome:
    """The outcome of a command that may refuse, but must not be wrong."""
    if answer.refused:
        return Outcome(REFUSED, answer.errors.strip().splitlines()[-1])
    if answer.code == 0 and as_undisturbed:
        return Outcome(RIGHT)
    return Outcome(WRONG, f"exit code {answer.code}\n{answer.printed[-2000:]}\n{answer.errors[-4000:]}")
