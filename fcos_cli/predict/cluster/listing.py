"""The list of a job: which pictures are in which partition. It is written once, so that a resumed job has the same one.

`_job/sources.arrow` is a file of Arrow's IPC format with a record batch for each partition. The machine that lists
holds one partition at a time, and a worker reads the batches that it needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from fcos_cli.predict.cluster.places import Place, store_errors, write_errors

SMALLEST, LARGEST = 16, 1024
"""Pictures of a partition."""
SHARE = 64
"""A partition has 1 / SHARE of the pictures before it, so that all workers are busy soon and until the end, and a large
job has few files."""


class Entry(NamedTuple):
    """A picture, or rows of a Parquet file.

    source: as the results name it; for a Parquet file, its name. root: number of the SOURCE that it comes from. error:
    why it cannot be read, if that is known already. first, rows: rows of the Parquet file; first is None for a picture.
    """

    source: str
    root: int
    error: str | None = None
    first: int | None = None
    rows: int = 1


class Listed(NamedTuple):
    """A list that was written: numbers of partitions and of pictures. base: the folder its paths are relative to."""

    partitions: int
    pictures: int
    base: str


def partitions_of(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut `entries` into partitions, in order. Rows of a Parquet file may be divided between two of them."""
    part, room, before = list[Entry](), SMALLEST, 0
    for entry in entries:
        rest = entry
        while rest.rows:
            taken = rest if rest.rows <= room else rest._replace(rows=room)
            part.append(taken)
            room, before = room - taken.rows, before + taken.rows
            if not room:
                yield part
                part, room = [], min(max(before // SHARE, SMALLEST), LARGEST)
            if taken is rest:
                break
            rest = rest._replace(first=(rest.first or 0) + taken.rows, rows=rest.rows - taken.rows)
    if part:
        yield part


def write_listing(place: Place, entries: Iterable[Entry], *, base: str) -> Listed:
    """Write the list. Raises what `entries` raises, and FcosError if writing fails."""
    import pyarrow as pa

    schema = _schema()
    count = pictures = 0
    with (
        write_errors(place),
        place.system.open_output_stream(place.path) as stream,
        pa.ipc.new_file(stream, schema) as writer,
    ):
        for part in partitions_of(entries):
            rows = [{**entry._asdict(), "source": os.fsencode(entry.source)} for entry in part]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
            count, pictures = count + 1, pictures + sum(entry.rows for entry in part)
    return Listed(count, pictures, base)


class Listing:
    """The list of a job, for reading."""

    def __init__(self, place: Place) -> None:
        import pyarrow as pa

        with store_errors(place):
            self._file: Any = pa.ipc.open_file(place.open())

    def partition(self, number: int) -> list[Entry]:
        rows = self._file.get_batch(number).to_pylist()
        return [Entry(**{**row, "source": os.fsdecode(row["source"])}) for row in rows]


def _schema() -> Any:
    import pyarrow as pa

    fields = {"source": pa.binary(), "root": pa.int32(), "error": pa.string(), "first": pa.int64(), "rows": pa.int64()}
    return pa.schema(list(fields.items()))
