"""Parquet files that hold the photos themselves, as Hugging Face `datasets` writes them.

A photo is a struct of `bytes` and `path`, or plain bytes; the class a number, a text, or a number whose names the file
keeps in its metadata under `huggingface`. Only the column of the classes is read here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import ConfigError, DataError, did_you_mean
from potstill.images.archives import MAX_FILES
from potstill.images.class_folders import shown
from potstill.images.photo_index import EMPTY, ROW, Facts, PhotoIndex
from potstill.images.stored import MAX_GROUP_BYTES, Container
from potstill.images.tar_shards import FIELDS, Label, plain_label

_BATCH = 1000
"""Classes that are read at once."""
_ADDRESSES = ("url", "image_url", "img_url", "photo_url", "image", "img", "photo", "picture")
"""Columns of texts that are taken for the addresses of photos where there is no column of photos."""


def holds_photos(path: Path) -> bool:
    """Whether a parquet file has a column of bytes; False for one that cannot be read."""
    try:
        with _opened(path) as file:
            return bool(_photo_columns(file.schema_arrow))
    except DataError:
        return False


def index_parquet(container: Container, path_column: str, label_column: str) -> PhotoIndex:
    """The photos of one file with their labels.

    Args:
        path_column, label_column: "" takes the ones with usual names.
    Raises:
        ConfigError: there is no such column.
        DataError: it is damaged, has no column of photos or of classes or several, row groups that are too large, or a
            label that is not one class.
    """
    from pyarrow import ArrowException

    container.fetch()
    try:
        with _opened(container.path) as file:
            return _index(file, container.path, path_column, label_column)
    except (ArrowException, OSError) as error:
        raise DataError(f"{container.path} cannot be read as parquet: {error}") from None


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(f"{path} needs pyarrow: pip install 'potstill[data]'.") from None
    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None


def _index(file: Any, path: Path, path_column: str, label_column: str) -> PhotoIndex:
    schema, features = file.schema_arrow, _features(file.schema_arrow)
    photo = _photo_column(path, schema, path_column)
    label = _label_column(path, schema, features, label_column, photo)
    _require_bytes(file, path, photo)
    if file.metadata.num_rows > MAX_FILES:
        raise DataError(f"{path} has {file.metadata.num_rows:,} rows; a file may have {MAX_FILES:,}. Write several.")
    rows = np.zeros(file.metadata.num_rows, ROW)
    codes: dict[Label, int] = {None: EMPTY}
    start = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        rows["offset"][start : start + count] = group
        rows["size"][start : start + count] = np.arange(count)
        start += count
    row = 0
    for batch in file.iter_batches(_BATCH, columns=[label], use_threads=False):
        for value in batch.column(0).to_pylist():
            found = _label(value, path, row, label)
            rows["label"][row] = codes.setdefault(found, len(codes) - 1)
            row += 1
    unused = [name for name in schema.names if name not in (photo, label)]
    facts = Facts(
        labels=[name for name in codes if name is not None],
        names=_names(features.get(label)),
        column=photo,
        used=[f"column {label}"],
        other=shown(unused) if unused else "",
    )
    return PhotoIndex(rows, np.zeros(0, np.uint8), facts)


def _label(value: Any, path: Path, row: int, column: str) -> Label:
    if value == -1:  # what Hugging Face writes for photos of test whose class is secret
        return None
    return plain_label(value, f"{path}, row {row}: the column {column!r}")


def _features(schema: Any) -> Mapping[str, Any]:
    """What `datasets` says about the columns."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _names(feature: Any) -> list[str]:
    names = feature.get("names") if isinstance(feature, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _photo_columns(schema: Any) -> list[str]:
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def is_photo(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type)
        return is_bytes(kind)

    return [field.name for field in schema if is_photo(field.type)]


def _photo_column(path: Path, schema: Any, wanted: str) -> str:
    columns = _photo_columns(schema)
    if wanted:
        _require_column(path, schema, wanted, "path_column")
        if wanted not in columns:
            raise DataError(f"{path}: the column {wanted!r} has no bytes of photos. {_download(path)}")
        return wanted
    if len(columns) > 1:
        raise DataError(
            f"{path} has several columns of bytes: {shown(columns)}. Name the one with the photos: "
            f"--images.path-column {columns[0]}."
        )
    if not columns:
        texts = [name for name in schema.names if name.casefold() in _ADDRESSES]
        only = f"; {texts[0]!r} holds addresses or paths only" if texts else ""
        raise DataError(f"{path} has no column with the bytes of photos{only}. {_download(path)}")
    return columns[0]


def _download(path: Path) -> str:
    return (
        "Addresses: `potstill get` downloads them. Paths: write the dataset again with the photos in it "
        "(Dataset.to_parquet)."
    )


def _label_column(path: Path, schema: Any, features: Mapping[str, Any], wanted: str, photo: str) -> str:
    if wanted:
        return _require_column(path, schema, wanted, "label_column")
    named = [name for name in schema.names if _names(features.get(name))]
    usual = [name for usual in FIELDS for name in schema.names if name.casefold() == usual]
    if found := [name for name in usual if name in named] or (named if len(named) == 1 else []) or usual:
        return found[0]
    columns = [name for name in schema.names if name != photo]
    if len(columns) == 1:
        return columns[0]
    what = "several columns of classes" if named else "no column that is known to hold the classes"
    raise DataError(f"{path} has {what}: {shown(named or columns)}. Name it: --images.label-column NAME.")


def _require_column(path: Path, schema: Any, name: str, setting: str) -> str:
    if name not in schema.names:
        near = did_you_mean(name, schema.names)
        raise ConfigError(f"images.{setting}: {path} has no column {name!r}.{near} It has: {shown(schema.names)}.")
    return name


def _require_bytes(file: Any, path: Path, photo: str) -> None:
    """Raise DataError for photos of which only the paths are there, and for row groups that are too large."""
    metadata = file.metadata
    leaves: Sequence[str] = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    leaf = leaves.index(f"{photo}.bytes" if f"{photo}.bytes" in leaves else photo)
    missing = 0
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(leaf)
        if column.total_uncompressed_size > MAX_GROUP_BYTES:
            raise DataError(
                f"{path}: row group {group} has {column.total_uncompressed_size:,} bytes of photos; a row group is "
                f"read as a whole, and may have {MAX_GROUP_BYTES:,}. Write the file again with row_group_size=100."
            )
        has_count = column.is_stats_set and column.statistics.has_null_count
        missing += column.statistics.null_count if has_count else 0
    if metadata.num_rows and missing == metadata.num_rows:
        raise DataError(f"{path}: no row of the column {photo!r} has the bytes of its photo. {_download(path)}")
