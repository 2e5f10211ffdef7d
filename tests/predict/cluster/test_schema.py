"""The Parquet files of a job have the documented columns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.errors import DataError
from fcos_cli.predict.cluster import schema as module
from fcos_cli.predict.cluster.places import locate
from fcos_cli.predict.cluster.schema import Counts, counts_of, row_of, schema, to_parquet
from fcos_cli.predict.pipeline import Failure, Prediction
from fcos_cli.runtime.results import Detections
from tests.runtime.fakes import AB

pq = pytest.importorskip("pyarrow.parquet")

DOCUMENTED = ["source", "width", "height", "boxes", "scores", "classes", "category_ids", "error"]


def test_rows_are_written_and_read(tmp_path: Path) -> None:
    boxes = np.array([[1, 2, 3.5, 4], [0, 0, 9, 9]], np.float32)
    found = Detections(boxes, np.array([0.75, 0.5], np.float32), np.array([1, 0]))
    none = found.select(slice(0))
    rows = [
        row_of(Prediction(Path("a.png"), 20, 10, found), AB),
        row_of(Prediction(Path("none.png"), 20, 10, none), AB),
        row_of(Failure(Path("odd\udcff.png"), DataError("the file is text")), AB),
    ]
    (tmp_path / "part.parquet").write_bytes(to_parquet(rows, Counts(3, 1, 2)))
    table = pq.read_table(tmp_path / "part.parquet")
    assert table.schema.names == schema().names == DOCUMENTED
    first, second, third = table.to_pylist()
    assert first == {
        "source": "a.png",
        "width": 20,
        "height": 10,
        "boxes": boxes.tolist(),
        "scores": [0.75, 0.5],
        "classes": ["b", "a"],
        "category_ids": [20, 10],
        "error": None,
    }
    assert (second["boxes"], second["scores"], second["error"]) == ([], [], None)
    assert third == {**dict.fromkeys(DOCUMENTED), "source": "odd\\xff.png", "error": "the file is text"}
    assert counts_of(locate(str(tmp_path / "part.parquet"))) == Counts(3, 1, 2)


def test_every_column_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/prediction.md").read_text(encoding="utf-8")
    for text in (module.__doc__ or "", page):
        table = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
        assert set(DOCUMENTED) <= set(re.findall(r"`(\w+)`", table))
