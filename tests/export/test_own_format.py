"""A format that somebody adds: registered in one line, converted, scored and loaded as the built-in ones are."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from tests.export.conftest import STUDENT, quiet

from potstill.errors import ExportError
from potstill.export import export, load_exported
from potstill.export.formats.base import Format
from potstill.export.formats.registry import FORMATS, register
from potstill.run.folder import Run

TORCH = FORMATS["torch"]


@pytest.fixture
def own() -> Iterator[Format]:
    """torch.export under another name, scored in this process."""
    format = dataclasses.replace(
        TORCH,
        name="own",
        title="Own",
        suffix=".own",
        export=lambda request: request.path.write_bytes(_as_torch(request)),
        precisions=("float32",),
        in_process=True,
    )
    register(format)
    yield format
    del FORMATS["own"]


def _as_torch(request):  # type: ignore[no-untyped-def]
    path = request.path.with_suffix(".pt2")
    TORCH.export(dataclasses.replace(request, path=path))
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.filterwarnings("ignore:Expect archive file to be a file ending in .pt2")
def test_it_is_exported_scored_and_loaded(taught_copy: Run, own: Format) -> None:
    (result,) = export(taught_copy, ["own"], ["float32"], reporter=quiet())
    assert (result.status, result.agreement, result.peak_memory) == ("ok", 1.0, None)
    assert result.file == f"{STUDENT}/student.own"
    photo = np.zeros((50, 40, 3), np.uint8)
    assert load_exported(taught_copy.export / result.file).predict(photo).label in taught_copy.classes()


@pytest.mark.parametrize("taken", [{"suffix": ".new"}, {"name": "new"}])
def test_a_name_or_suffix_that_is_taken_is_refused(taken: dict[str, str]) -> None:
    with pytest.raises(ExportError, match=r"torch\.export has the name 'torch' and the suffix '\.pt2' already"):
        register(dataclasses.replace(TORCH, **taken))  # type: ignore[arg-type]
