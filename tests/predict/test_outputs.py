"""Outputs never replace a source or somebody else's file."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.predict import outputs
from fcos_cli.predict.draw import save_image
from fcos_cli.predict.mark import was_written_by_us
from fcos_cli.predict.outputs import LONGEST, OutputNames, shorten, source_test

PIXELS = np.zeros((4, 4, 3), np.uint8)


def choose(names: OutputNames, folder: Path, stem: str = "a", suffix: str = ".jpg") -> str:
    return names.choose(stem, lambda name: [folder / f"{name}{suffix}"])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_only_files_with_the_mark_are_replaced(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert choose(OutputNames(), tmp_path, suffix=suffix) == "a"
    save_image(path, PIXELS)
    assert was_written_by_us(path)
    assert choose(OutputNames(), tmp_path, suffix=suffix) == "a"  # a later run
    Image.new("RGB", (4, 4)).save(path)
    assert not was_written_by_us(path)
    assert choose(OutputNames(), tmp_path, suffix=suffix) == "a-2"


def test_a_marked_file_that_is_a_source_is_not_replaced(tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg", PIXELS)
    assert choose(OutputNames(source_test([str(tmp_path)])), tmp_path) == "a-2"
    assert choose(OutputNames(source_test([str(tmp_path / "a.jpg")])), tmp_path) == "a-2"
    assert choose(OutputNames(source_test([str(tmp_path / "b.jpg")])), tmp_path) == "a"


def test_folders_and_links_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "a-2.jpg").symlink_to(tmp_path / "nowhere")
    assert choose(OutputNames(), tmp_path) == "a-3"


def test_two_sources_of_one_run_get_two_names(tmp_path: Path) -> None:
    names = OutputNames()
    assert [choose(names, tmp_path, suffix=suffix) for suffix in (".jpg", ".png", ".jpg")] == ["a", "a-2", "a-3"]


def test_many_sources_of_one_name_take_linear_time(tmp_path: Path) -> None:
    names, tried = OutputNames(), []

    def paths(name: str) -> list[Path]:
        tried.append(name)
        return [tmp_path / f"{name}.jpg"]

    (tmp_path / "a-3.jpg").touch()
    assert [names.choose("a", paths) for _ in range(4)] == ["a", "a-2", "a-4", "a-5"]
    assert tried == ["a", "a-2", "a-3", "a-4", "a-5"]


def test_names_that_differ_in_case_only_are_not_both_taken(tmp_path: Path) -> None:
    names = OutputNames()
    stems = [choose(names, tmp_path, stem) for stem in ("IMG_1", "img_1", "Img_1-2", "\u00e9", "e\u0301")]
    assert stems == ["IMG_1", "img_1-2", "Img_1-2-2", "\u00e9", "e\u0301-2"]
    assert choose(names.another(), tmp_path, "img_1-2", ".JPG") == "img_1-2-3"  # `names` has written those files


def test_other_outputs_of_the_same_sources_have_the_same_stems_but_other_paths(tmp_path: Path) -> None:
    names = OutputNames()
    assert choose(names, tmp_path, "a.classes", ".png") == "a.classes"
    other = names.another()
    assert choose(other, tmp_path, "a", ".html") == "a"
    assert choose(other, tmp_path, "b", ".png") == "b"
    assert choose(names.another(), tmp_path, "a", ".classes.png") == "a-2"  # `names` has written that file


@pytest.mark.parametrize("stem", ["x" * 250, "ж" * 122, "é" * 100 + "x" * 50])
def test_long_names_are_shortened_between_characters(tmp_path: Path, stem: str) -> None:
    names = OutputNames()
    first, second = choose(names, tmp_path, stem), choose(names, tmp_path, stem)
    assert stem.startswith(first)
    assert len(os.fsencode(first)) in (LONGEST - 1, LONGEST)
    assert second == f"{first}-2"
    (tmp_path / f"{second}.explain.html").touch()
    assert shorten("short") == "short"
    assert shorten("short", end="-000007") == "short-000007"
    assert shorten(stem, end="-000007").removesuffix("-000007") in stem
    assert len(os.fsencode(shorten(stem, end="-000007"))) in (LONGEST - 1, LONGEST)


def test_sources_are_recognized_in_every_notation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/deep/a.jpg", "one.jpg", "listed.png", "other.jpg", "glob1.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("list.txt").write_text("listed.png\nmissing.png\n")
    Path("broken.txt").write_bytes(b"\xff\xfe\x00")
    is_source = source_test(["in", "one.jpg", "list.txt", "glob*.jpg", "broken.txt", "nowhere", "camera:0"])
    for name in ("in/deep/a.jpg", "one.jpg", "listed.png", "glob1.jpg"):
        assert is_source(Path(name).resolve()), name
    assert not is_source(Path("other.jpg").resolve())
    assert source_test(["-"])(Path("other.jpg").resolve())


def test_many_named_sources_take_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(outputs, "_is_pipe", looked_at.append)
    sources = [str(tmp_path / f"{n}.jpg") for n in range(9)]
    is_source = source_test(sources)
    assert not any(is_source(tmp_path / f"out/{n}.jpg") for n in range(9))
    assert looked_at == sources


def test_a_list_in_a_pipe_is_not_read_for_the_test(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")  # opening it would wait for a writer
    assert source_test([str(tmp_path / "list.txt")])(tmp_path / "any.jpg")
