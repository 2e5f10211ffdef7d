"""The files of a folder: those that tools hide, and those behind links."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.formats.file_index import FileIndex, files_below


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def deny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the folder one that the user may not read. No file mode does that for root, who may read everything."""

    def denying(function: Callable[..., Any]) -> Callable[..., Any]:
        def denied(place: Any = ".") -> Any:
            if not isinstance(place, int) and Path(place) == folder:
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return function(place)

        return denied

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, denying(getattr(os, name)))


def below(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files_below(folder)]


def test_files_come_in_a_fixed_order_without_hidden_ones(tmp_path: Path) -> None:
    names = ("b.jpg", "a.jpg", "z/a.jpg", "c/b.jpg", ".a.jpg", ".ipynb_checkpoints/a.jpg", "c/@eaDir/a.jpg")
    touch(*(tmp_path / name for name in names))
    assert below(tmp_path) == ["a.jpg", "b.jpg", "c/b.jpg", "z/a.jpg"]


def test_a_linked_folder_is_entered(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "deep" / "a.jpg", tmp_path / "images" / "b.jpg")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert below(tmp_path / "images") == ["b.jpg", "more/deep/a.jpg"]


@pytest.mark.parametrize("target", [".", "..", "real"])
def test_a_link_to_where_the_files_are_found_anyway_adds_none(tmp_path: Path, target: str) -> None:
    touch(tmp_path / "images" / "real" / "a.jpg")
    (tmp_path / "images" / "link").symlink_to(target)
    assert below(tmp_path / "images") == ["real/a.jpg"]


def test_two_links_to_one_folder_add_its_files_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.jpg", tmp_path / "images" / "b.jpg")
    for name in ("first", "second"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "elsewhere")
    assert below(tmp_path / "images") == ["b.jpg", "first/a.jpg"]


def test_a_link_to_the_parent_of_another_linked_folder_adds_the_rest(tmp_path: Path) -> None:
    store, images = tmp_path / "store", tmp_path / "images"
    touch(store / "part" / "a.jpg", store / "other" / "b.jpg", store / "c.jpg", images / "d.jpg")
    (images / "a").symlink_to(store / "part")
    (images / "b").symlink_to(store)
    assert below(images) == ["d.jpg", "a/a.jpg", "b/c.jpg", "b/other/b.jpg"]


def test_linked_folders_keep_their_own_paths_and_lead_nowhere_twice(tmp_path: Path) -> None:
    store, images = tmp_path / "store", tmp_path / "images"
    touch(store / "part" / "a.jpg", images / "b.jpg")
    (store / "again").symlink_to("part")
    (store / "part" / "up").symlink_to("..")
    (store / "part" / "back").symlink_to(images)
    (images / "more").symlink_to(store)
    assert below(images) == ["b.jpg", "more/part/a.jpg"]


def test_a_link_to_a_hidden_folder_of_the_same_place_is_entered(tmp_path: Path) -> None:
    touch(tmp_path / ".store" / "a.jpg")
    (tmp_path / "images").symlink_to(".store")
    assert below(tmp_path) == ["images/a.jpg"]


def test_a_missing_folder_has_no_files(tmp_path: Path) -> None:
    assert below(tmp_path / "absent") == []


def test_a_folder_that_cannot_be_read_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "deep" / "b.jpg", tmp_path / "lost+found" / "c.jpg")
    deny(monkeypatch, tmp_path / "lost+found")
    assert below(tmp_path) == ["a.jpg", "deep/b.jpg"]
    deny(monkeypatch, tmp_path / "deep")
    with pytest.raises(PermissionError):
        below(tmp_path)
    index = FileIndex()
    assert tmp_path / "a.jpg" in index
    index.check_missing()
    assert tmp_path / "deep" / "b.jpg" not in index
    with pytest.raises(PermissionError):
        index.check_missing()


def test_a_name_is_found_in_other_spellings(tmp_path: Path) -> None:
    touch(tmp_path / "caf\u00e9 1.jpg")
    index = FileIndex()
    assert index.find(tmp_path / "cafe\u0301%201.jpg") == tmp_path / "caf\u00e9 1.jpg"
    assert index.find(tmp_path / "tea.jpg") is None
