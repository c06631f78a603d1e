"""comparison.json is read as it was written, and refused where another version wrote it."""

from pathlib import Path

import pytest
from tests.reports import edit

import potstill
from potstill.errors import DataError
from potstill.run.results import FORMAT, READABLE, read_comparison, write_comparison

STORED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*.json"))


def test_a_comparison_is_read_as_it_was_written(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    write_comparison(path, tiny_run.comparison)
    assert read_comparison(path) == tiny_run.comparison
    assert path.read_bytes() == (tiny_run.run.comparison / "comparison.json").read_bytes()


@pytest.mark.parametrize("number", [READABLE[0] - 1, FORMAT + 1, "1"])
def test_another_format_is_refused_in_one_sentence(number: object, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_bytes(STORED[0].read_bytes())
    edit(path, lambda values: values.update(format=number))
    with pytest.raises(DataError, match=rf"another version of Potstill \(format {number}, this version reads"):
        read_comparison(path)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("[1]")
    with pytest.raises(DataError, match="or is damaged"):
        read_comparison(tmp_path / "comparison.json")


@pytest.mark.parametrize("key", ["teacher", "seeds"])
def test_a_damaged_file_is_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_bytes(STORED[0].read_bytes())
    edit(path, lambda values: values.pop(key))
    with pytest.raises(DataError, match="is damaged"):
        read_comparison(path)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_results_in_docs_can_be_read(path: Path) -> None:
    assert read_comparison(path).teacher.accuracy.value > 0.8
