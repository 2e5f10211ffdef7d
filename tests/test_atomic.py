"""Whether a file could be written, without writing one. tests/predict/test_writers.py has the writing itself."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fcos_cli.atomic import atomic_write, check_length, check_writable
from fcos_cli.errors import UsageError


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in (folder, *folder.rglob("*")))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    return tmp_path


@pytest.mark.parametrize("name", ["new", "file", "folder/new", "a/b/new", "nowhere", "a/../b/new"])
def test_files_that_can_be_written(place: Path, name: str) -> None:
    before = snapshot(place)
    check_writable(place / name)
    assert snapshot(place) == before
    with atomic_write(place / name) as stream:  # the check was right
        stream.write("y")
    assert (place / name).read_text() == "y"


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(place: Path) -> None:
    (place / "link").symlink_to("file")
    with atomic_write(place / "link") as stream:
        stream.write("y")
    assert not (place / "link").is_symlink()
    assert (place / "link").read_text() == "y"
    assert (place / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "this is a folder"),
        ("file/new", "file is not a folder"),
        ("file/a/b/new", "file is not a folder"),
        ("a/../file/new", "file is not a folder"),
        ("nowhere/new", "nowhere is not a folder"),
        ("x" * 256, "256 bytes"),
        ("ä" * 128, "256 bytes"),
    ],
)
def test_files_that_cannot_be_written(place: Path, name: str, words: str) -> None:
    before = snapshot(place)
    with pytest.raises(UsageError, match=re.escape(words)):
        check_writable(place / name)
    with pytest.raises(UsageError, match=re.escape(words)), atomic_write(place / name):
        pass
    assert snapshot(place) == before


@pytest.mark.parametrize("address", ["s3://bucket/found.jsonl", "https://me:secret@host/found", "file:///tmp/found"])
def test_an_address_is_no_folder_of_that_name(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (False, True):
        with pytest.raises(UsageError, match="this is an address") as caught:
            check_writable(Path(address), folder=folder)
        assert caught.value.where == f"{address.partition(':')[0]}://…"
    with pytest.raises(UsageError), atomic_write(Path(address)):
        pass
    assert snapshot(tmp_path)[1:] == []


@pytest.mark.parametrize("name", ["folder", "new", "a/b"])
def test_folders_that_can_be_written_to(place: Path, name: str) -> None:
    before = snapshot(place)
    check_writable(place / name, folder=True)
    assert snapshot(place) == before


@pytest.mark.parametrize("name", ["file", "file/a", "nowhere"])
def test_folders_that_cannot_be_written_to(place: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        check_writable(place / name, folder=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("check", [check_writable, lambda path: check_writable(path, folder=True)])
def test_read_only_folders(place: Path, check: Callable[[Path], None]) -> None:
    (place / "folder").chmod(0o500)
    for path in (place / "folder" / "new", place / "folder" / "a" / "new"):
        with pytest.raises(UsageError, match="folder is read-only, or not yours"):
            check(path)


def test_a_folder_in_which_nothing_can_be_looked_at(theirs: Path) -> None:
    for path in (theirs / "new", theirs / "a" / "new"):
        with pytest.raises(UsageError, match="theirs is read-only, or not yours"):
            check_writable(path)


def test_devices_are_written_directly() -> None:
    check_writable(Path("/dev/null"))


def test_names_of_the_greatest_length_are_allowed() -> None:
    check_length(Path("x" * 255))
    check_length(Path("ä" * 127 + "x"))
    check_length(Path("/".join(["x" * 15] * 256)[:4095]))
    with pytest.raises(UsageError, match="path has 4096 bytes"):
        check_length(Path("/" + "x" * 15 + "/x" * 2040))
