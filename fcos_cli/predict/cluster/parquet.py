"""Pictures in Parquet files: as bytes, as Hugging Face's data sets have them, or as paths and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fcos_cli.errors import DataError
from fcos_cli.predict.cluster.places import Place, store_errors

COLUMN = "image"
"""The column that is read unless --column names another."""
TOGETHER = 8
"""Rows that are read at a time: they may hold large pictures."""


def holds_bytes(file: Place, column: str) -> bool:
    """Whether the column holds pictures; otherwise it holds paths or addresses.

    Raises DataError if the file cannot be read, has no such column, or one that holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with store_errors(file), file.open() as stream:
        schema = pq.read_schema(stream)
    if column not in schema.names:
        there = ", ".join(schema.names[:12]) or "none"
        raise DataError(f"this file has no column {column!r}", where=file.name, remedy=f"--column NAME; it has {there}")
    kind = schema.field(column).type
    if pa.types.is_struct(kind):  # Hugging Face: {"bytes": …, "path": …}
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return True
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return False
    what = f"the column {column!r} holds {kind}, neither bytes of images nor text"
    raise DataError(what, where=file.name, remedy=f"--column NAME; it has {', '.join(schema.names[:12])}")


def row_groups(file: Place) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each row group. Raises DataError."""
    import pyarrow.parquet as pq

    with store_errors(file), file.open() as stream:
        metadata = pq.read_metadata(stream)
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        yield first, rows
        first += rows


def values(file: Place, column: str, *, first: int = 0, rows: int | None = None) -> Iterator[Any]:
    """The values of a column in `rows` rows from `first`: bytes, text or None. rows: None = all. Raises DataError.

    Row groups before `first` are not read, and a row group is read page by page.
    """
    import pyarrow.parquet as pq

    with store_errors(file), file.open() as stream:
        reader = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
        end = reader.metadata.num_rows if rows is None else first + rows
        spans = list(row_groups(file))
        groups = [number for number, (start, count) in enumerate(spans) if start < end and start + count > first]
        row = spans[groups[0]][0] if groups else end
        for batch in reader.iter_batches(TOGETHER, row_groups=groups, columns=[column]):
            for value in batch.column(0).slice(max(first - row, 0), max(end - max(row, first), 0)).to_pylist():
                yield value.get("bytes") if isinstance(value, dict) else value
            row += len(batch)
            if row >= end:
                return
