"""From sources to a list: the same pictures in the same order as without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.cluster.listing import Entry
from fcos_cli.predict.cluster.places import locate
from fcos_cli.predict.cluster.sources import check_sources, list_sources
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.open import open_sources

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.jpg", "z/c.PNG", "k/d.tif", ".hidden.png", "clip.mp4", "notes.md"):
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
    return tmp_path


def listed(*sources: str, column: str | None = None, out: str = "out") -> list[Entry]:
    return list(list_sources(sources, check_sources(sources), column=column, out=locate(out)))


@pytest.mark.parametrize("source", ["in", "in/", "in/*.png", "in/b.png", "list.txt", "in/../in"])
def test_paths_are_those_of_the_local_path_in_its_order(source: str) -> None:
    Path("list.txt").write_text("# pictures\nin/b.png\n\nin/gone.png\nhttp://host/a.jpg\nin/a.jpg\nin/a.jpg\n")
    local = [(str(item.source), item.error.what) if isinstance(item, Failure) else (str(item), None)
             for item in open_sources([source])]  # fmt: skip
    assert [(entry.source, entry.error) for entry in listed(source)] == local


def test_several_sources_follow_each_other_and_know_where_they_come_from() -> None:
    found = [(entry.source, entry.root) for entry in listed("in/z", "in/b.png")]
    assert found == [("in/z/c.PNG", 0), ("in/b.png", 1)]


def test_videos_of_a_list_are_errors_and_a_video_itself_is_refused() -> None:
    Path("list.txt").write_text("in/a.jpg\nin/clip.mp4\n")
    assert listed("list.txt")[1] == Entry("in/clip.mp4", 0, error="videos are not read by --engine ray")
    for source in ("in/clip.mp4", "camera:0", "-"):
        with pytest.raises(UsageError, match="not stdin, cameras and videos"):
            check_sources([source])
    with pytest.raises(UsageError, match="no images given"):
        check_sources([])
    with pytest.raises(DataError, match="the name of a source is empty"):
        check_sources([""])


def test_the_results_are_passed_over_if_they_are_inside_the_source() -> None:
    names = [entry.source for entry in listed("in", out="in/z")]
    assert names == ["in/a.jpg", "in/b.png", "in/k/d.tif"]


def test_an_address_of_a_folder_gives_the_same_pictures(folder: Path) -> None:
    root = f"file://{folder}/in"
    assert [entry.source for entry in listed(root)] == [f"{root}/{n}" for n in ("a.jpg", "b.png", "k/d.tif", "z/c.PNG")]
    assert [entry.source for entry in listed(f"{root}/b.png")] == [f"{root}/b.png"]


def test_a_list_at_an_address_may_name_addresses_of_its_kind(folder: Path) -> None:
    Path("list.txt").write_text(f"in/b.png\n# no\n\nfile://{folder}/in/a.jpg\ns3://bucket/a.jpg\n")
    relative, absolute, other = listed(f"file://{folder}/list.txt")
    assert relative == Entry(f"file://{folder}/in/b.png", 0)
    assert absolute == Entry(f"file://{folder}/in/a.jpg", 0)
    assert other.error is not None
    assert other.error.startswith("s3:// addresses in a file are read only if")


def test_sources_that_are_missing_or_empty_are_errors(folder: Path) -> None:
    (folder / "empty").mkdir()
    for source in ("gone", "empty", "gone/*.png", f"file://{folder}/gone", f"file://{folder}/empty", "gone.parquet"):
        with pytest.raises(DataError) as error:
            listed(source)
        assert str(error.value.where) == source


def test_missing_parquet_files_are_called_so(folder: Path) -> None:
    for source, what in (
        ("gone.parquet", "no such file or folder"),
        ("in", "no Parquet files found"),
        ("in/*.parquet", "no Parquet files found"),
        (f"file://{folder}/in", "no Parquet files found"),
        (f"file://{folder}/gone.parquet", "the file does not exist"),
    ):
        with pytest.raises(DataError, match=what) as error:
            listed(source, column="image")
        assert str(error.value.where) == source


def test_rows_of_parquet_files_that_hold_pictures_are_listed_by_row_groups() -> None:
    Path("p").mkdir()
    for name in ("p/1.parquet", "p/0.parquet", "p/_job.parquet"):
        pq.write_table(pa.table({"image": [b"x"] * 5}), name, row_group_size=3)
    expected = [
        Entry(f"p/{name}.parquet", 0, first=first, rows=rows) for name in "01" for first, rows in ((0, 3), (3, 2))
    ]
    assert listed("p", column="image") == expected
    assert listed("p/[01].parquet") == expected
    assert [entry._replace(source=Path(entry.source).name) for entry in listed(f"file://{Path.cwd()}/p/0.parquet")] == [
        entry._replace(source="0.parquet") for entry in expected[:2]
    ]


def test_rows_of_parquet_files_that_name_pictures_are_those_pictures() -> None:
    pq.write_table(pa.table({"name": ["b.png", "in/a.jpg", "gone.png", None, "s3://b/a.png"]}), "in/names.parquet")
    found = listed("in/names.parquet", column="name")
    assert [entry.source for entry in found] == [
        "in/b.png",
        "in/a.jpg",
        "in/gone.png",
        "in/names.parquet:3",
        "s3://b/a.png",
    ]
    assert [entry.error is None for entry in found] == [True, True, True, False, False]


def test_a_parquet_file_without_the_column_is_an_error() -> None:
    pq.write_table(pa.table({"picture": [b"x"]}), "a.parquet")
    with pytest.raises(DataError, match="no column 'image'"):
        listed("a.parquet")
