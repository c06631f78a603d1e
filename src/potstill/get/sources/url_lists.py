"""Lists of photo addresses: CSV, TSV, JSON lines, parquet, or one plain text file per class."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from potstill.errors import SourceError
from potstill.get.licenses import license_id
from potstill.get.sources import LOCAL_PREFIX, Candidate

SUFFIXES = {".txt", ".csv", ".tsv", ".jsonl", ".parquet"}


def text_candidates(path: Path) -> Iterator[Candidate]:
    """One URL per line, the class is the file's name. Lines that begin with # are comments."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                if (url := line.strip()) and not url.startswith("#"):
                    yield _candidate({"url": url, "label": path.stem})
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text: {error}") from None


def list_candidates(path: Path) -> Iterator[Candidate]:
    """A table with the columns url and label. Raises SourceError where they are missing, with the line."""
    if path.suffix == ".txt":
        yield from text_candidates(path)
        return
    rows = _rows(path)
    number = 1
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{path} cannot be read after row {number - 1}: {error}") from None
        if not isinstance(row, Mapping) or not row.get("url") or not row.get("label"):
            have = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
            raise SourceError(f"{path}, row {number}: url and label are required, found {have}.")
        yield _candidate(row)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise SourceError(f"{path}, line {number} is not JSON: {error}") from None
        else:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise SourceError(
            f"{path} needs pyarrow: pip install 'potstill[data]'. CSV and JSON lines need nothing."
        ) from None
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(1000):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read as parquet: {error}") from None


def _candidate(row: Mapping[str, Any]) -> Candidate:
    def text(name: str) -> str:
        found = str(row.get(name) or "").strip()
        return found.encode("utf-8", "replace").decode()  # JSON can hold half a character

    url = text("url")
    split = text("split").lower()
    return Candidate(
        key=f"{LOCAL_PREFIX}-{hashlib.sha256(url.encode()).hexdigest()[:16]}",
        label=text("label"),
        group=text("group") or url,
        url=url,
        sha256=text("sha256"),
        license=license_id(text("license")) or text("license"),
        author=text("author"),
        title=text("title"),
        landing_url=text("landing_url"),
        split={"train": "train", "test": "test", "val": "test", "validation": "test"}.get(split, ""),
    )
