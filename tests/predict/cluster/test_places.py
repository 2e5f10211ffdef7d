"""Paths and addresses: what is read and written, and what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.cluster.places import StoredAddress, StoredFile, as_typed, locate, walk

pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    "text", ["s3://bucket/folder", "gs://bucket/a.parquet", "file:///tmp/a", "found.parquet", "/a/b"]
)
def test_an_address_survives_being_a_path(text: str) -> None:
    assert as_typed(Path(text)) == text


def test_a_name_that_begins_with_a_tilde_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("~no such user").path == str(tmp_path / "~no such user")


def test_only_stores_are_read() -> None:
    with pytest.raises(UsageError, match="cannot read this address") as error:
        locate("http://user:secret@host/a.jpg?key=1")
    assert error.value.exit_code == 2
    assert "secret" not in str(error.value)


def test_an_address_that_cannot_be_opened_shows_no_secret() -> None:
    with pytest.raises(DataError, match="cannot be opened") as error:
        locate("s3://me:secret@/?nonsense=1")
    assert "secret" not in str(error.value)


def test_files_of_a_folder_are_listed_as_by_the_local_path(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "z/c.png", "k/d.png", ".hidden", ".git/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    root = locate(f"file://{tmp_path}")
    names = [file.name.removeprefix(f"file://{tmp_path}/") for file in walk(root)]
    assert names == ["a.png", "b.png", "k/d.png", "z/c.png"]


def test_a_file_is_written_at_once_and_read_when_it_is_needed(tmp_path: Path) -> None:
    place = locate(str(tmp_path / "out")).at("a.bin")
    later = StoredFile(place)
    place.write(b"123")
    assert later.read() == b"123"
    assert (place.kind, place.at("b").kind) == ("file", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.bin"]
    with pytest.raises(DataError, match="does not exist"):
        StoredFile(locate(str(tmp_path / "gone"))).read()


def test_a_key_is_shown_whole() -> None:
    assert str(StoredAddress("s3://bucket/what? #3.jpg")) == "s3://bucket/what? #3.jpg"
