from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.errors import DataError, MissingExtra, UsageError
from fcos_cli.predict.draw import save_image
from fcos_cli.predict.outputs import source_test
from fcos_cli.predict.pipeline import Failure, predict
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.sources.lists import STDIN
from fcos_cli.predict.sources.open import open_sources, readiness, typed_path
from fcos_cli.predict.sources.output_folder import OutputFolder
from tests.predict.clips import write_clip
from tests.runtime.fakes import CornerDetector


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path, *sources: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in open_sources(sources)]


def test_file_is_used_whatever_its_suffix(tmp_path):
    touch(tmp_path, "a.jpg", "b")
    assert names(tmp_path, f"{tmp_path}/b", f"{tmp_path}/a.jpg") == ["b", "a.jpg"]


def test_folder_yields_its_images_sorted_then_those_of_subfolders(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "notes.md", "z/c.webp", "d/e/f.jpeg", ".hidden.jpg", ".cache/g.jpg")
    touch(tmp_path, "lost+found/h.jpg", "@eaDir/i.jpg")
    assert names(tmp_path, str(tmp_path)) == ["a.png", "b.JPG", "d/e/f.jpeg", "z/c.webp"]


def test_pattern_yields_matching_images_sorted(tmp_path):
    touch(tmp_path, "2.jpg", "1.jpg", "1.txt", "sub/3.jpg")
    assert names(tmp_path, f"{tmp_path}/*") == ["1.jpg", "2.jpg"]
    assert names(tmp_path, f"{tmp_path}/**/*.jpg") == ["1.jpg", "2.jpg", "sub/3.jpg"]


def test_file_whose_name_looks_like_a_pattern(tmp_path):
    touch(tmp_path, "[1].jpg", "1.jpg")
    assert names(tmp_path, f"{tmp_path}/[1].jpg") == ["[1].jpg"]


def test_existing_folders_with_brackets_in_a_pattern_are_taken_by_their_name(tmp_path, monkeypatch):
    touch(tmp_path, "run[1]/a.jpg", "run[1]/deep/b.jpg", "run1/c.jpg", "run2/d.jpg")
    assert names(tmp_path, f"{tmp_path}/run[1]/*.jpg") == ["run[1]/a.jpg"]
    assert names(tmp_path, f"{tmp_path}/run[1]/**/*.jpg") == ["run[1]/a.jpg", "run[1]/deep/b.jpg"]
    assert names(tmp_path, f"{tmp_path}/run[12]/*.jpg") == ["run1/c.jpg", "run2/d.jpg"]  # no such folder: a pattern
    monkeypatch.chdir(tmp_path)
    assert list(open_sources(["run[1]/*.jpg", "*/*.jpg"])) == [
        Path("run[1]/a.jpg"),
        *(Path("run1/c.jpg"), Path("run2/d.jpg"), Path("run[1]/a.jpg")),
    ]
    monkeypatch.chdir("run[1]")
    assert next(open_sources(["../run[1]/*.jpg"])) == Path("../run[1]/a.jpg")


def test_brackets_in_a_pattern_without_matches_are_explained(tmp_path):
    touch(tmp_path, "a[1].jpg")
    with pytest.raises(DataError) as caught:
        list(open_sources([f"{tmp_path}/a[1].*"]))
    assert caught.value.remedy == "brackets in a pattern are a choice of characters: write [[] for [ itself"
    assert names(tmp_path, f"{tmp_path}/a[[]1].*") == ["a[1].jpg"]


def test_a_list_without_any_existing_file_names_the_list_its_first_entry_and_where_was_looked(tmp_path, monkeypatch):
    touch(tmp_path, "lists/near.jpg", "here/x.jpg")
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "lists" / "l.txt"
    file.write_text("# comment\n\nimages/1.jpg\n2.jpg\n")
    with pytest.raises(DataError) as caught:
        open_sources([str(file)])
    assert caught.value.what == "none of the 2 paths in this list exists"
    assert caught.value.where == f"{file}, first entry: images/1.jpg"
    assert caught.value.remedy == f"they were looked for in {tmp_path / 'lists'} and in {tmp_path / 'here'}"
    (failure, image) = open_sources([str(file), "x.jpg"])
    assert isinstance(failure, Failure)
    assert failure.error.what == caught.value.what
    assert image == Path("x.jpg")
    file.write_text("images/1.jpg\n2.jpg\nnear.jpg\n")  # one that exists is enough
    assert len(list(open_sources([str(file)]))) == 3


def test_list_is_relative_to_itself_or_to_the_working_directory(tmp_path, monkeypatch):
    touch(tmp_path, "lists/near.jpg", "here/far.jpg")
    (tmp_path / "lists/l.txt").write_text(
        f"\ufeffnear.jpg\r\n\n# a comment\nfar.jpg\ngone.jpg\n{tmp_path}/here/far.jpg\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path / "here")
    assert list(open_sources(["../lists/l.txt"])) == [
        Path("../lists/near.jpg"),
        Path("far.jpg"),
        Path("../lists/gone.jpg"),  # reported when it is read
        tmp_path / "here/far.jpg",
    ]


def test_duplicates_and_order_are_kept(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    a, b = f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"
    assert names(tmp_path, b, a, b) == ["b.jpg", "a.jpg", "b.jpg"]


def test_missing_source_is_reported_first_and_does_not_stop_the_others(tmp_path):
    touch(tmp_path, "a.jpg")
    (missing, image) = open_sources([f"{tmp_path}/a.jpg", "nowhere.jpg"])
    assert isinstance(missing, Failure)
    assert isinstance(missing.error, DataError)
    assert (str(missing.source), missing.error.where) == ("nowhere.jpg", "nowhere.jpg")
    assert image == tmp_path / "a.jpg"


def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="the name of a source is empty"):
        open_sources([""])
    failure, image = open_sources(["", "a.jpg"])
    assert isinstance(failure, Failure)
    assert failure.error.what == "the name of a source is empty"
    assert image == Path("a.jpg")
    assert source_test(["", "a.jpg"])(tmp_path / "a.jpg")
    assert not source_test([""])(tmp_path / "a.jpg")


def test_single_missing_source_raises_immediately():
    with pytest.raises(DataError) as caught:
        open_sources(["nowhere.jpg"])
    assert caught.value.where == "nowhere.jpg"


def test_folder_without_images_does_not_stop_the_others(tmp_path):
    touch(tmp_path, "sub/notes.md", "a.jpg")
    failure, image = open_sources([f"{tmp_path}/sub", f"{tmp_path}/a.jpg"])
    assert isinstance(failure, Failure)
    assert str(failure.source) == f"{tmp_path}/sub"
    assert image == tmp_path / "a.jpg"


def test_single_source_without_images_raises(tmp_path):
    touch(tmp_path, "sub/notes.md", "empty.txt")
    for source in (f"{tmp_path}/sub", f"{tmp_path}/*.jpg", f"{tmp_path}/empty.txt"):
        with pytest.raises(DataError, match="no images") as caught:
            list(open_sources([source]))
        assert caught.value.where == source


def test_binary_list_raises(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="cannot read the list"):
        list(open_sources([f"{tmp_path}/l.txt"]))


def test_a_listed_name_that_is_not_utf_8_is_found_or_fails_alone(tmp_path):
    names = [b"a.jpg"] * 100 + [b"caf\xe9.jpg", b"gone\xff.jpg", b"b.jpg"]
    for name in (b"a.jpg", b"caf\xe9.jpg", b"b.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(encoded("PNG"))
    (tmp_path / "l.txt").write_bytes(b"\n".join(names))
    results = list(predict(CornerDetector(), open_sources([f"{tmp_path}/l.txt"])))
    assert [os.fsencode(result.source.name) for result in results if isinstance(result, Failure)] == [b"gone\xff.jpg"]
    assert [os.fsencode(result.source.name) for result in results[-3:]] == names[-3:]


def test_no_sources_is_a_usage_error():
    with pytest.raises(UsageError):
        open_sources([])


def test_list_is_read_lazily(tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\n" * 100_000 + "\0 never reached", encoding="utf-8")
    paths = open_sources([f"{tmp_path}/l.txt"])
    assert next(paths) == tmp_path / "a.jpg"


def test_line_with_a_number_sign_is_a_comment_unless_a_file_has_that_name(tmp_path, monkeypatch):
    touch(tmp_path, "lists/#1.jpg", "here/#2.jpg")
    (tmp_path / "lists/l.txt").write_text("# a comment\n#1.jpg\n#2.jpg\n#3.jpg\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    assert list(open_sources(["../lists/l.txt"])) == [Path("../lists/#1.jpg"), Path("#2.jpg")]


def test_spaces_around_a_listed_name_are_part_of_it_if_a_file_has_that_name(tmp_path):
    touch(tmp_path, " a.jpg", "b.jpg ", "c.jpg")
    (tmp_path / "l.txt").write_text(" a.jpg\nb.jpg \n  c.jpg  \n \n", encoding="utf-8")
    assert names(tmp_path, f"{tmp_path}/l.txt") == [" a.jpg", "b.jpg ", "c.jpg"]


# ---------------------------------------------------------------- passed over, and said so


def test_what_is_passed_over_is_reported_once(tmp_path, capfd):
    touch(tmp_path, "in/a.jpg", "in/1.HEIC", "in/2.heic", "in/sub/3.heic", "in/x.cr2", "in/notes.md", "in/.y.heic")
    touch(tmp_path, "in/c.mp4", "in/c.mov", "away/z.jpg", "in/.hidden/w.heic")
    (tmp_path / "in/linked").symlink_to(tmp_path / "away")
    assert names(tmp_path, f"{tmp_path}/in") == ["in/a.jpg"]
    folder = f"{tmp_path}/in"
    assert sorted(capfd.readouterr().err.splitlines()) == [
        f"{folder}: 1 .cr2 file was left out ({folder}/x.cr2): develop and save as JPEG",
        f"{folder}: 1 linked folder was left out ({folder}/linked): give its path as well",
        f"{folder}: 2 videos were left out (such as {folder}/c.mov): give the path of each, or a pattern like '*.mp4'",
        f"{folder}: 3 .heic files were left out (such as {folder}/1.HEIC): convert to JPEG",
    ]


def test_folders_that_a_pattern_matches_are_left_out_and_reported(tmp_path, capfd):
    touch(tmp_path, "in/a.jpg", "in/2023/b.jpg", "in/2024/c.jpg", "in/lost+found/x", "in/notes.md", "in/out/a.jpg")
    outputs = OutputFolder(tmp_path / "in/out", writes=True)
    assert list(open_sources([f"{tmp_path}/in/*"], leave_out=outputs)) == [tmp_path / "in/a.jpg"]
    folders = f"2 folders were left out (such as {tmp_path}/in/2023): give its path, or a pattern like '**/*.jpg'"
    assert capfd.readouterr().err == f"{tmp_path}/in/*: {folders}\n"
    assert len(list(open_sources([f"{tmp_path}/in/**/*"]))) == 4
    assert capfd.readouterr().err == ""


def test_nothing_is_reported_if_nothing_is_passed_over(tmp_path, capfd):
    touch(tmp_path, "in/a.jpg", "in/notes.md", "in/out/drawn.jpg")
    (tmp_path / "in/alias").symlink_to(tmp_path / "in/out")
    outputs = OutputFolder(tmp_path / "in/out", writes=True)
    assert list(open_sources([f"{tmp_path}/in"], leave_out=outputs)) == [tmp_path / "in/a.jpg"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("source", ["in", "in/*.heic"])
def test_source_with_nothing_but_unreadable_pictures_says_why_it_is_empty(tmp_path, capfd, source):
    touch(tmp_path, "in/1.heic", "in/2.heic")
    with pytest.raises(DataError, match="no images found"):
        list(open_sources([f"{tmp_path}/{source}"]))
    assert "2 .heic files were left out" in capfd.readouterr().err


def test_subfolder_that_cannot_be_read_is_a_failure_in_its_place(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "b/1.jpg", "c/2.jpg")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    first, failure, last = open_sources([str(tmp_path)])
    assert (first, last) == (tmp_path / "a.jpg", tmp_path / "c/2.jpg")
    assert isinstance(failure, Failure)
    assert "Permission denied" in failure.error.what
    assert failure.error.where == f"{tmp_path}/b"


@pytest.mark.parametrize("name", ["a.jpg", "deep/*.jpg", "list.txt"])
def test_a_source_in_a_folder_of_somebody_else_does_not_stop_the_others(tmp_path, theirs, name):
    touch(tmp_path, "a.jpg")
    with pytest.raises(DataError, match="no permission to read this") as caught:
        open_sources([f"{theirs}/{name}"])
    assert caught.value.where == f"{theirs}/{name}"
    failure, image = open_sources([f"{theirs}/{name}", f"{tmp_path}/a.jpg"])
    assert isinstance(failure, Failure)
    assert image == tmp_path / "a.jpg"


def test_a_source_on_a_disk_that_is_gone_does_not_stop_the_others(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg")
    gone, stat = tmp_path / "mnt", os.stat

    def refuse(path, *arguments, **options):
        if Path(path) == gone:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(DataError, match="Transport endpoint is not connected") as caught:
        open_sources([str(gone)])
    assert (caught.value.where, caught.value.remedy) == (str(gone), "check the disk or the connection")
    failure, image = open_sources([str(gone), f"{tmp_path}/a.jpg"])
    assert isinstance(failure, Failure)
    assert image == tmp_path / "a.jpg"


# ---------------------------------------------------------------- files that are no files


def test_folders_pipes_and_vanished_files_do_not_stop_the_others(tmp_path):
    for name in ("a.jpg", "e.jpg"):
        (tmp_path / name).write_bytes(encoded("PNG"))
    (tmp_path / "b.jpg").mkdir()
    os.mkfifo(tmp_path / "c.jpg")
    (tmp_path / "d.jpg").symlink_to(tmp_path / "gone.jpg")
    touch(tmp_path, "f.jpg")

    def vanishing():
        for item in open_sources([f"{tmp_path}/*.jpg"]):
            if item.name == "f.jpg":
                item.unlink()
            yield item

    results = list(predict(CornerDetector(), vanishing()))
    errors = {r.source.name: r.error for r in results if isinstance(r, Failure)}
    assert [r.source.name for r in results] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    for name, what in {"b": "folder", "c": "pipe", "d": f"link to {tmp_path}/gone.jpg", "f": "not exist"}.items():
        assert what in errors.pop(f"{name}.jpg").what
    assert not errors


def test_what_was_drawn_into_a_source_is_passed_over_in_its_subfolders_too(tmp_path):
    touch(tmp_path, "a.jpg", "crops/cat/mine.jpg")
    save_image(tmp_path / "crops/cat/a-000-cat-0.87.jpg", np.zeros((4, 4, 3), np.uint8))
    outputs = OutputFolder(tmp_path, writes=True)
    listed = [path.relative_to(tmp_path).as_posix() for path in open_sources([str(tmp_path)], leave_out=outputs)]
    assert listed == ["a.jpg", "crops/cat/mine.jpg"]
    (crop, mine) = open_sources([str(tmp_path / "crops/cat")], leave_out=outputs)  # which the user asked for
    assert (crop.name, mine.name) == ("a-000-cat-0.87.jpg", "mine.jpg")


def test_a_name_that_begins_with_a_tilde_is_a_home_only_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "~no such user.jpg", "home/a.jpg", "home/b.jpg", "~/b.jpg")
    paths = [typed_path(text) for text in ("~no such user.jpg", "~/a.jpg", "~/b.jpg", "~no such*")]
    assert paths == [Path("~no such user.jpg"), tmp_path / "home/a.jpg", Path("~/b.jpg"), Path("~no such*")]
    assert list(open_sources(["~no such user.jpg", "~no such*"])) == [paths[0], paths[0]]
    assert source_test(["~no such user.jpg"])(Path("~no such user.jpg").resolve())


def test_pipe_among_the_outputs_is_not_waited_for(tmp_path):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    outputs = OutputFolder(tmp_path, writes=True)
    assert list(open_sources([str(tmp_path)], leave_out=outputs)) == [tmp_path / "a.jpg", tmp_path / "b.jpg"]


# ---------------------------------------------------------------- videos


def test_video_yields_its_frames_if_named_listed_or_matched(tmp_path):
    write_clip(tmp_path / "c.mp4", 3)
    (tmp_path / "l.txt").write_text("c.mp4\n", encoding="utf-8")
    for source in ("c.mp4", "l.txt", "*.mp4"):
        frames = list(open_sources([f"{tmp_path}/{source}"]))
        assert [frame.moment.number for frame in frames] == [0, 1, 2]
        assert {frame.source for frame in frames} == {tmp_path / "c.mp4"}
    assert len(list(open_sources([f"{tmp_path}/c.mp4"] * 2, frames=2))) == 4


def test_videos_in_a_folder_are_skipped(tmp_path):
    write_clip(tmp_path / "c.mp4", 3)
    touch(tmp_path, "a.jpg")
    assert list(open_sources([str(tmp_path)])) == [tmp_path / "a.jpg"]


def test_bad_video_is_a_failure_in_its_place(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    touch(tmp_path, "a.jpg")
    failure, image = open_sources([f"{tmp_path}/bad.mp4", f"{tmp_path}/a.jpg"])
    assert isinstance(failure, Failure)
    assert image == tmp_path / "a.jpg"


@pytest.mark.parametrize("source", ["c.mp4", "*.mp4", "camera:0", "rtsp://me:secret@host/live"])
def test_without_pyav_a_video_is_one_error_before_anything_runs(tmp_path, monkeypatch, source):
    touch(tmp_path, "a.jpg", "c.mp4", "d.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra) as caught:
        open_sources(["a.jpg", source])
    assert caught.value.where == source.replace("me:secret@", "")
    assert list(open_sources(["."])) == [Path("a.jpg")]


def test_missing_camera_is_a_failure():
    pytest.importorskip("av")
    (failure,) = open_sources(["camera:63"])
    assert isinstance(failure, Failure)


# ---------------------------------------------------------------- stdin


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BufferedReader(io.BytesIO(content))


def encoded(format: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 0, 0)).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_stdin_can_be_an_image(monkeypatch, format):
    monkeypatch.setattr("sys.stdin", Stdin(encoded(format)))
    (result,) = predict(CornerDetector(), open_sources(["-"]))
    assert (result.source, result.width, result.height) == (STDIN, 20, 10)


def test_stdin_can_be_a_list_of_paths(monkeypatch, tmp_path):
    touch(tmp_path, "Bäume.jpg", "b.jpg")
    stdin = Stdin(f"# a comment\n{tmp_path}/Bäume.jpg\r\n\n{tmp_path}/b.jpg".encode())
    monkeypatch.setattr("sys.stdin", stdin)
    assert names(tmp_path, "-") == ["Bäume.jpg", "b.jpg"]
    assert not stdin.buffer.closed


def test_names_with_a_number_sign_on_stdin_are_no_comments(monkeypatch, tmp_path):
    touch(tmp_path, "#1.jpg", "2.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", Stdin(b"#1.jpg\n2.jpg\n"))
    assert list(open_sources(["-"])) == [Path("#1.jpg"), Path("2.jpg")]


def test_stdin_is_a_list_if_its_512th_byte_is_within_a_character(monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(("x" * 511 + "ä.jpg\n").encode()))
    assert list(open_sources(["-"])) == [Path("x" * 511 + "ä.jpg")]


def test_broken_image_on_stdin_is_reported_as_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(encoded("JPEG")[:200]))
    (result,) = predict(CornerDetector(), open_sources(["-"]))
    assert isinstance(result, Failure)
    assert (result.source, result.error.where) == (STDIN, "stdin")


def test_stdin_is_ready_once_something_came_or_it_ended(monkeypatch):
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as stdin, open(writer, "w", encoding="utf-8") as theirs:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", stdin)
        is_ready = readiness(["a.jpg", "-"])
        assert not is_ready()
        theirs.write("b.jpg\n")
        theirs.flush()
        assert is_ready()
        assert stdin.readline() == "b.jpg\n"
        assert not is_ready()
        theirs.close()
        assert is_ready()
    assert readiness(["a.jpg"])()
    assert not readiness(["a.jpg", "camera:0"])()


def test_empty_stdin_raises(monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(b""))
    with pytest.raises(DataError, match="stdin is empty"):
        list(open_sources(["-"]))


def test_image_in_memory(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    (result,) = predict(CornerDetector(), [Frame(Path("x"), (tmp_path / "a.png").read_bytes())])
    assert (result.width, result.height) == (20, 10)
