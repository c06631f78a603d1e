"""Tables in files: CSV with commas, semicolons or tabs, JSON lines, parquet. Rows and their numbers, nothing more."""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import DataError
from potstill.wording import counted

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")

MAX_BYTES = 512 * 2**20
MAX_ROWS = 2_000_000
"""Of one table. A row with a path and a label takes some 50 bytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    number: int
    """As a spreadsheet or an editor counts: in text files the header is row 1."""
    values: Mapping[str, Any]
    """By column. Cells that are not there have no entry."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, read whole."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    encoding: str = ""
    """Of a text that is not Unicode."""


def is_table(path: Path) -> bool:
    """Whether a path is a file with the name of a table."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        DataError: no such file, another kind of file, damaged, too large, or a row that does not fit its header.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(f"{path} is not a table that can be read ({', '.join(SUFFIXES)}). Save it as CSV.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"{path} has {size:,} bytes; a table may have {MAX_BYTES:,}. Leave out what is not needed.")
    table = _read_parquet(path) if kind == ".parquet" else _read_text(path, kind)
    if not table.rows:
        raise DataError(f"{path} has no rows.")
    return table


def _read_text(path: Path, kind: str) -> Table:
    text, encoding = _decoded(path)
    if kind in (".jsonl", ".ndjson"):
        rows = tuple(_limited(_json_rows(path, text), path))
        columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
        return Table(path, columns, rows, encoding)
    lines = io.StringIO(text, newline="")
    delimiter = "\t" if kind == ".tsv" else _delimiter(lines.readline())
    lines.seek(0)
    records = _records(path, lines, delimiter)
    _, header = next(records, (0, []))
    columns = tuple(name.strip() for name in header)
    if repeated := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise DataError(f"{path} has two columns {repeated[0]!r}. Rename one.")
    return Table(path, columns, tuple(_limited(_csv_rows(path, columns, records), path)), encoding)


def _limited(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    for count, row in enumerate(rows, 1):
        if count > MAX_ROWS:
            raise DataError(f"{path} has more than {MAX_ROWS:,} rows. Leave out what is not needed.")
        yield row


def _decoded(path: Path) -> tuple[str, str]:
    """The text, and its encoding where that is not Unicode."""
    data = path.read_bytes()
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # What Excel writes: UTF-16 as "Unicode text", and Windows-1252 as CSV in western Europe and America.
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", "windows-1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding if encoding == "windows-1252" else ""
    raise DataError(f"{path} is not a text in UTF-8, UTF-16 or Windows-1252. Save it as CSV in UTF-8.")


def _delimiter(header: str) -> str:
    """What separates the columns of a header; a comma where nothing does."""
    return max(",;\t", key=header.count)


def _records(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not empty, with their row as spreadsheets count."""
    number = 0
    try:
        # Strict: a quote that is never closed would swallow the rest of the table.
        for number, record in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), 1):
            if any(cell.strip() for cell in record):
                yield number, record
    except csv.Error as error:
        raise DataError(f"{path}, row {number + 1}: {error}.") from None


def _csv_rows(path: Path, columns: tuple[str, ...], records: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    for number, record in records:
        if any(cell.strip() for cell in record[len(columns) :]):
            raise DataError(
                f"{path}, row {number} has {counted(len(record), 'cell')}, the header {len(columns)}. Put cells that "
                "hold the delimiter in quotes."
            )
        yield Row(number, {name: cell for name, cell in zip(columns, record, strict=False) if name})


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, row {number} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}, row {number} is not a JSON object: {line[:40]!r}.")
        yield Row(number, values)


def _read_parquet(path: Path) -> Table:
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        raise DataError(f"{path} needs pyarrow: pip install 'potstill[data]'. CSV needs nothing.") from None
    try:
        with parquet.ParquetFile(path) as file:
            fields = {field.name: field.type for field in file.schema_arrow}
            if file.metadata.num_rows > MAX_ROWS:
                raise DataError(f"{path} has {file.metadata.num_rows:,} rows; a table may have {MAX_ROWS:,}.")
            heavy = (types.is_struct, types.is_binary, types.is_large_binary)
            if photos := [name for name, kind in fields.items() if any(is_heavy(kind) for is_heavy in heavy)]:
                raise DataError(
                    f"{path} holds the photos themselves, in the column {photos[0]!r}, and not their paths. Save them "
                    "as files, and the table without this column."
                )
            batches = file.iter_batches(10_000)
            values = [row for batch in batches for row in batch.to_pylist()]
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    return Table(path, tuple(fields), tuple(Row(number, row) for number, row in enumerate(values, 1)))
