"""A run that was stopped goes on with --resume: nothing is done again, and nothing is lost."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.errors import FcosError, UsageError
from fcos_cli.predict.resume import check_resume, is_resumable, settings_of
from fcos_cli.predict.sources.open import open_sources
from tests.cli_runner import Fcos
from tests.predict.clips import write_clip
from tests.predict.made import predict_with
from tests.runtime.fakes import CornerDetector

FOUND, PART = Path("found.jsonl"), Path("found.jsonl.part")


class StoppedDetector(CornerDetector):
    """Like Ctrl-C while the network runs on image `last` + 1."""

    last = 10**9

    def __call__(self, images):
        if len(self.sizes) == self.last:
            raise KeyboardInterrupt
        return super().__call__(images)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Predict in an empty folder with at most `last` images. Returns the number of failures and of images done."""
    monkeypatch.chdir(tmp_path)

    def run(*sources, last=10**9, resume=True, resumable=True, detector=None, **options):
        detector = detector or StoppedDetector()
        detector.last = last
        try:
            failed = predict_with(
                detector, open_sources(sources), save=[FOUND], resumable=resumable, resume=resume, **options
            )
        except KeyboardInterrupt:
            failed = None
        return failed, len(detector.sizes)

    return run


def pictures(folder: Path, count: int = 9) -> str:
    """`count` pictures, the third of which cannot be read."""
    folder.mkdir()
    for n in range(count):
        Image.new("RGB", (20, 10), (20 * n, 0, 0)).save(folder / f"{n}.png")
    (folder / "2.png").write_bytes(b"no picture")
    return str(folder)


@pytest.mark.parametrize("stops", [[0], [1], [2], [4], [8], [1, 1, 3]])
def test_pictures_are_done_once_and_the_file_is_that_of_a_run_that_was_not_stopped(run, capfd, stops):
    sources = ("gone.png", pictures(Path("in")), "in/1.png")  # the last is named twice
    assert run(*sources, resume=False) == (2, 9)
    whole = FOUND.read_bytes()
    FOUND.unlink()
    for last in stops:
        assert run(*sources, last=last) == (None, last)
        assert not FOUND.exists()
    assert "found.jsonl.part keeps what was done" in capfd.readouterr().err
    assert run(*sources) == (2, 9 - sum(stops))  # what could not be read counts as before
    assert FOUND.read_bytes() == whole
    assert not PART.exists()


def test_the_picture_of_an_incomplete_row_is_done_again(run):
    folder = pictures(Path("in"))
    run(folder, resume=False)
    whole = FOUND.read_bytes()
    FOUND.unlink()
    run(folder, last=5)
    rows = PART.read_bytes()
    PART.write_bytes(rows[:-7])
    assert run(folder) == (1, 4)
    assert FOUND.read_bytes() == whole
    PART.write_bytes(rows + b"\0\0\0")  # as after a power cut
    assert run(folder) == (1, 3)
    assert FOUND.read_bytes() == whole
    PART.write_bytes(rows[:9])  # killed within the first line
    assert run(folder) == (1, 8)
    assert FOUND.read_bytes() == whole


def test_errors_at_the_end_are_tried_again_since_the_disk_may_have_been_gone(run, capfd):
    folder = pictures(Path("in"))
    run(folder, resume=False)
    whole = FOUND.read_bytes()
    FOUND.unlink()
    run(folder, last=5)
    lost = [json.dumps({"schema_version": 1, "source": f"in/{n}.png", "error": "Host is down"}) for n in (6, 7)]
    PART.write_bytes(PART.read_bytes() + "\n".join([*lost, ""]).encode())
    assert run(folder) == (1, 3)
    assert "6 results of an earlier run are kept, 1 of them an error" in capfd.readouterr().err
    assert FOUND.read_bytes() == whole


def test_the_same_folder_in_another_notation_is_an_error_and_the_rows_stay(run):
    folder = pictures(Path("in"))
    run(folder, last=3)
    rows = PART.read_bytes()
    with pytest.raises(UsageError, match=r"had different sources, such as in/0\.png") as error:
        run(str(Path(folder).resolve()))
    assert error.value.where == str(Path(folder, "0.png").resolve())
    assert PART.read_bytes() == rows
    assert run(folder) == (1, 5)


def test_new_files_are_done_and_those_that_are_gone_are_named(run, capfd):
    folder = pictures(Path("in"))
    run(folder, last=3)
    for name in ("-1.png", "-2.png"):  # before all others
        shutil.copy("in/1.png", f"in/{name}")
    for name in ("0.png", "1.png"):
        Path("in", name).unlink()
    assert run(folder) == (1, 7)
    message = "results are kept for 2 files, such as in/0.png, that are no longer among the sources"
    assert message in capfd.readouterr().err
    sources = [json.loads(line)["source"] for line in FOUND.read_text().splitlines()]
    assert sorted(sources) == sorted(f"in/{n}.png" for n in range(-2, 9))


@pytest.mark.parametrize("last", [3, 8, 11, 17])
def test_frames_of_videos_are_done_once(run, last):
    for name in ("a.mp4", "b.mp4"):
        write_clip(Path(name), 6, size=(16, 16))
    sources = ("a.mp4", "b.mp4", "a.mp4")
    assert run(*sources, resume=False) == (0, 18)
    whole = FOUND.read_bytes()
    FOUND.unlink()
    assert run(*sources, last=last) == (None, last)
    assert run(*sources) == (0, 18 - last)
    assert FOUND.read_bytes() == whole
    frames = [json.loads(line)["frame"] for line in whole.splitlines()]
    assert frames == [*range(6)] * 3


def test_without_the_flag_a_run_begins_again_and_says_so(run, capfd):
    folder = pictures(Path("in"))
    run(folder, last=3)
    assert "dropped" not in capfd.readouterr().err
    assert run(folder, resume=False) == (1, 8)
    assert "found.jsonl.part: 4 results of an earlier run are dropped" in capfd.readouterr().err
    assert len(FOUND.read_text().splitlines()) == 9


def test_a_run_that_wrote_nothing_leaves_nothing(run):
    run(pictures(Path("in")), last=0)
    assert [path.name for path in Path().iterdir()] == ["in"]


def test_an_earlier_result_stays_until_the_new_one_is_complete(run):
    folder = pictures(Path("in"))
    run(folder)
    before = FOUND.read_bytes()
    run(folder, last=3, resume=False, score=0.9)
    assert FOUND.read_bytes() == before


def test_other_settings_are_an_error_that_names_them_and_the_rows_stay(run):
    folder = pictures(Path("in"))
    run(folder, last=3, score=0.5)
    rows = PART.read_bytes()
    with pytest.raises(UsageError, match=r"a different model or options: score\n"):
        run(folder, score=0.6)
    with pytest.raises(UsageError, match=r"options: batch, every, frames, iou, max_detections, score\n"):
        run(folder, every=2, limit=4, frames=30, iou=0.5, batch=2)
    assert PART.read_bytes() == rows
    assert run(folder, score=0.5) == (1, 5)


def test_other_arithmetic_is_another_setting(run):
    folder = pictures(Path("in"))
    run(folder, last=3, detector=StoppedDetector(backend="onnxruntime", precision="bf16"))
    with pytest.raises(UsageError, match=r"a different model or options: backend, precision\n"):
        run(folder)
    assert run(folder, detector=StoppedDetector(backend="onnxruntime", precision="bf16")) == (1, 5)


def test_limits_that_an_option_changed_do_not_make_another_model():
    class Adjustable(CornerDetector):
        def set_limits(self, *, iou: float | None, max_detections: int | None) -> None:
            self.facts = replace(self.facts, nms_iou=iou or 0.6, max_detections=max_detections or 100)

    detector = Adjustable()
    before = settings_of(detector, iou=None)
    detector.set_limits(iou=0.3, max_detections=200)
    assert settings_of(detector, iou=0.3) == {**before, "iou": 0.3}
    fixed = CornerDetector(facts=replace(CornerDetector().facts, nms_iou=0.3))  # as of a file exported with it
    assert settings_of(fixed)["model"] != settings_of(CornerDetector())["model"]


def test_whole_batches_are_kept_so_that_the_next_ones_are_padded_as_before(run):
    folder, sizes = pictures(Path("in")), []
    for rows in (4, 3):
        run(folder, last=1, batch=4, resume=False)  # four pictures, of which one is an error
        PART.write_bytes(b"".join(PART.read_bytes().splitlines(keepends=True)[: 1 + rows]))
        detector = StoppedDetector()
        assert run(folder, batch=4, detector=detector)[0] == 1
        assert len(FOUND.read_text().splitlines()) == 9
        sizes.append(detector.sizes)
    assert sizes == [[4, 1], [3, 4, 1]]


def test_a_run_that_cannot_be_resumed_keeps_no_part(run, capfd):
    assert run(pictures(Path("in")), last=3, resume=False, resumable=False) == (None, 3)
    assert [path.name for path in Path().iterdir()] == ["in"]
    assert "--resume" not in capfd.readouterr().err


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_is_no_part_is_not_replaced(run, resume):
    PART.write_text("a letter")
    with pytest.raises(UsageError, match="not the unfinished result") as error:
        run(pictures(Path("in")), resume=resume)
    assert error.value.where == "found.jsonl.part"
    assert PART.read_text() == "a letter"


def test_two_runs_cannot_write_the_same_file(run):
    folder = pictures(Path("in"))
    run(folder, last=3)
    with PART.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another run of fcos predict is writing this file"):
            run(folder)
    assert run(folder) == (1, 5)


@pytest.mark.parametrize("last", [0, 10**9])
def test_a_part_is_removed_while_nobody_else_can_use_it(run, monkeypatch, last):
    unlink, removed = Path.unlink, []

    def check(path, **options):
        if path == PART:
            removed.append(path)
            with path.open("rb") as stream, pytest.raises(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", check)
    run(pictures(Path("in")), last=last)
    assert removed == [PART]


def test_only_a_single_jsonl_file_can_be_resumed(tmp_path):
    file = tmp_path / "a.jsonl"
    assert is_resumable([file], None, False, live=False)
    assert check_resume([file], resumable=True)
    for save, other, live in (
        ([], None, False),
        ([tmp_path / "a.csv"], None, False),
        ([file, tmp_path / "a.csv"], None, False),
        ([file], tmp_path / "drawn", False),
        ([file], None, True),
    ):
        assert not is_resumable(save, other, live=live)
    with pytest.raises(UsageError, match="--resume needs --save FILE"):
        check_resume([file], resumable=False)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert not is_resumable([tmp_path / "pipe.jsonl"], live=False)


def test_a_finished_run_is_not_done_again(run, capfd):
    run("in/0.png", pictures(Path("in"), 2), resume=False)
    Path("in/2.png").unlink()
    with pytest.raises(FcosError, match="finished, and 1 of its 4 rows are errors") as error:
        check_resume([FOUND], resumable=True)
    assert error.value.exit_code == 1  # as the run itself
    run("in", resume=False)
    assert not check_resume([FOUND], resumable=True)
    assert "found.jsonl is finished, with 2 rows" in capfd.readouterr().err


def test_a_file_that_no_run_finished_is_not_called_finished(run):
    run(pictures(Path("in"), 2), resume=False)
    rows = FOUND.read_bytes()
    FOUND.write_bytes(rows[:-3])  # as `--jsonl > found.jsonl` leaves it when it is killed
    with pytest.raises(UsageError, match="incomplete or damaged after row 2,"):
        check_resume([FOUND], resumable=True)
    FOUND.write_bytes(b"")
    assert check_resume([FOUND], resumable=True)
    run("in")
    assert FOUND.read_bytes() == rows


def test_the_command_goes_on(fcos: Fcos, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("predict", pictures(Path("in"), 4), "--model", model_file, "--save", FOUND)
    assert fcos(*line).code == 1
    whole = FOUND.read_bytes()
    FOUND.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupt)
        assert fcos(*line).code == 130
    rows = PART.read_bytes().splitlines(keepends=True)
    PART.write_bytes(b"".join(rows[:3]))
    result = fcos(*line, "--resume")
    assert (result.code, FOUND.read_bytes()) == (1, whole)
    assert "found.jsonl: 2 results of an earlier run are kept\n" in result.err
    FOUND.unlink()
    PART.write_bytes(b"".join(rows))
    assert "4 results of an earlier run are kept, 1 of them an error" in fcos(*line, "--resume").err
    assert fcos(*line, "--resume", "--viz").code == 2
    assert fcos(*line, "--resume", "--jsonl").code == 2


@pytest.mark.parametrize("live", [False, True])
def test_the_command_promises_to_go_on_only_where_it_does(
    fcos: Fcos, model_file: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    monkeypatch.setattr("fcos_cli.predict.sources.open.is_live", lambda _: live)
    monkeypatch.setattr("fcos_cli.predict.writers._JsonLines.end", interrupt)
    result = fcos("predict", pictures(Path("in"), 2), "--model", model_file, "--save", FOUND)
    assert result.code == 130
    assert ("repeat the command with --resume" in result.err) is not live
    assert PART.exists() is not live


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
