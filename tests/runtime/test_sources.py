from __future__ import annotations

from pathlib import Path

import pytest

from fcos_cli.errors import DataError, UsageError
from fcos_cli.runtime.sources import expand


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path, *sources: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in expand(sources)]


def test_a_file_is_itself_whatever_its_suffix(tmp_path):
    touch(tmp_path, "a.jpg", "b")
    assert names(tmp_path, f"{tmp_path}/b", f"{tmp_path}/a.jpg") == ["b", "a.jpg"]


def test_a_folder_gives_its_pictures_sorted_then_those_of_its_subfolders(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "notes.md", "z/c.webp", "d/e/f.jpeg", ".hidden.jpg", ".cache/g.jpg")
    assert names(tmp_path, str(tmp_path)) == ["a.png", "b.JPG", "d/e/f.jpeg", "z/c.webp"]


def test_a_pattern_gives_the_matching_pictures_sorted(tmp_path):
    touch(tmp_path, "2.jpg", "1.jpg", "1.txt", "sub/3.jpg")
    assert names(tmp_path, f"{tmp_path}/*") == ["1.jpg", "2.jpg"]
    assert names(tmp_path, f"{tmp_path}/**/*.jpg") == ["1.jpg", "2.jpg", "sub/3.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    touch(tmp_path, "[1].jpg", "1.jpg")
    assert names(tmp_path, f"{tmp_path}/[1].jpg") == ["[1].jpg"]


def test_a_list_names_paths_beside_itself_or_in_the_working_folder(tmp_path, monkeypatch):
    touch(tmp_path, "lists/near.jpg", "here/far.jpg")
    (tmp_path / "lists/l.txt").write_text(
        f"\ufeffnear.jpg\r\n\n# a comment\nfar.jpg\ngone.jpg\n{tmp_path}/here/far.jpg\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path / "here")
    assert list(expand(["../lists/l.txt"])) == [
        Path("../lists/near.jpg"),
        Path("far.jpg"),
        Path("../lists/gone.jpg"),  # left for the reader to report
        tmp_path / "here/far.jpg",
    ]


def test_repeats_and_order_are_kept(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    a, b = f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"
    assert names(tmp_path, b, a, b) == ["b.jpg", "a.jpg", "b.jpg"]


def test_a_missing_source_is_told_before_the_first_picture(tmp_path):
    touch(tmp_path, "a.jpg")
    with pytest.raises(DataError) as caught:
        expand([f"{tmp_path}/a.jpg", "nowhere.jpg"])
    assert caught.value.where == "nowhere.jpg"


def test_a_folder_or_list_or_pattern_without_pictures_is_an_error_that_names_it(tmp_path):
    touch(tmp_path, "sub/notes.md", "empty.txt")
    for source in (f"{tmp_path}/sub", f"{tmp_path}/*.jpg", f"{tmp_path}/empty.txt"):
        with pytest.raises(DataError, match="no pictures") as caught:
            list(expand([source]))
        assert caught.value.where == source


def test_a_list_that_is_no_text_is_an_error(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="cannot read the list"):
        list(expand([f"{tmp_path}/l.txt"]))


def test_naming_nothing_is_a_usage_error():
    with pytest.raises(UsageError):
        expand([])


def test_a_long_list_is_read_as_it_is_used(tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\n" * 100_000 + "\0 never reached", encoding="utf-8")
    paths = expand([f"{tmp_path}/l.txt"])
    assert next(paths) == tmp_path / "a.jpg"
