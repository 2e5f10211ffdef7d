"""What `fcos predict --engine ray` writes: a row for each picture, as Parquet.

| column | type | |
|---|---|---|
| `source` | string | path or address of the picture; `FILE.parquet:7` for row 7 (from 0) of a Parquet file |
| `width`, `height` | int32 | of the upright picture, in pixels; null with an error |
| `boxes` | list of lists of 4 float32 | xyxy in pixels of the picture, exclusive ends, best first; null with an error |
| `scores` | list of float32 | 0…1 |
| `classes` | list of string | names |
| `category_ids` | list of int64 | ids of the classes in the data set that the model was trained on |
| `error` | string | why the picture could not be read; null otherwise |
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.cluster.places import Place, store_errors
from fcos_cli.predict.pipeline import Failure, Prediction

KEY = b"fcos"
"""Key of the metadata that holds the counts of each file."""


class Counts(NamedTuple):
    """Rows of a file, how many of them are errors, and pictures of which only the first page or frame was used."""

    pictures: int = 0
    failed: int = 0
    noted: int = 0

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def schema() -> Any:
    """pyarrow's schema of the files."""
    import pyarrow as pa

    floats = pa.list_(pa.float32())
    fields = {
        "source": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "boxes": pa.list_(floats),
        "scores": floats,
        "classes": pa.list_(pa.string()),
        "category_ids": pa.list_(pa.int64()),
        "error": pa.string(),
    }
    return pa.schema(list(fields.items()))


def row_of(result: Prediction | Failure, classes: ClassTable) -> dict[str, Any]:
    """The row of a result. Columns that it does not have are null."""
    source = str(result.source).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(result, Failure):
        return {"source": source, "error": result.error.what}
    found = result.detections
    indices = found.classes.tolist()
    return {
        "source": source,
        "width": result.width,
        "height": result.height,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "classes": [classes.names[index] for index in indices],
        "category_ids": [classes.ids[index] for index in indices],
    }


def to_parquet(rows: Iterable[dict[str, Any]], counts: Counts) -> bytes:
    """The content of a file with these rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    described = schema().with_metadata({KEY: json.dumps(counts._asdict())})
    output = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), described), output)
    return output.getvalue()


def counts_of(part: Place) -> Counts:
    """The counts in the metadata of a file. Raises DataError."""
    import pyarrow.parquet as pq

    with store_errors(part), part.open() as stream:
        return Counts(**json.loads(pq.read_schema(stream).metadata[KEY]))
