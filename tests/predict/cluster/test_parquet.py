"""Rows of Parquet files, whatever their row groups are."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.errors import DataError
from fcos_cli.predict.cluster.parquet import holds_bytes, row_groups, values
from fcos_cli.predict.cluster.places import Place, locate

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(folder: Path, column: object, *, group: int = 100, name: str = "image") -> Place:
    file = folder / "a.parquet"
    pq.write_table(pa.table({name: column, "label": [0] * len(column)}), file, row_group_size=group)  # type: ignore[arg-type]
    return locate(str(file))


@pytest.mark.parametrize("group", [1, 7, 10, 100])
def test_a_part_of_the_rows_is_that_part(tmp_path: Path, group: int) -> None:
    content = [b"%d" % row for row in range(30)]
    content[11] = None  # type: ignore[call-overload]
    file = write(tmp_path, content, group=group)
    for first, rows in ((0, 30), (0, 1), (29, 1), (9, 11), (10, 10), (3, 0), (14, 15)):
        assert list(values(file, "image", first=first, rows=rows)) == content[first : first + rows]
    assert list(values(file, "image")) == content
    assert sum(rows for _, rows in row_groups(file)) == 30
    assert [first for first, _ in row_groups(file)] == list(range(0, 30, group))


def test_columns_of_hugging_face_hold_bytes(tmp_path: Path) -> None:
    column = pa.array([{"bytes": b"1", "path": "a"}, {"bytes": None, "path": "b"}])
    file = write(tmp_path, column)
    assert holds_bytes(file, "image")
    assert list(values(file, "image")) == [b"1", None]


def test_text_is_told_from_bytes(tmp_path: Path) -> None:
    assert holds_bytes(write(tmp_path, pa.array([b"1"], pa.large_binary())), "image")
    assert not holds_bytes(write(tmp_path, pa.array(["a"], pa.large_string())), "image")


def test_a_column_that_is_missing_or_holds_numbers_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    file = write(tmp_path, [b"1"], name="picture")
    with pytest.raises(DataError, match="no column 'image'") as error:
        holds_bytes(file, "image")
    assert error.value.remedy == "--column NAME; it has picture, label"
    with pytest.raises(DataError, match="'label' holds int64, neither"):
        holds_bytes(file, "label")


def test_what_is_no_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_text("a letter")
    with pytest.raises(DataError, match="cannot read this") as error:
        holds_bytes(locate(str(tmp_path / "b.parquet")), "image")
    assert error.value.where == str(tmp_path / "b.parquet")
