"""run_predict: annotated images and videos, crops, JSON and progress output."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict import progress
from fcos_cli.predict.labels.plan import plan_labels
from fcos_cli.predict.progress import MAX_ERRORS, MAX_IMAGE_LINES, summary
from fcos_cli.predict.run import check_outputs
from fcos_cli.predict.sources.frames import Clip, Frame, Moment
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.sources.stop import Stop
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections
from tests.predict.clips import read_clip, write_clip
from tests.predict.made import predict_with
from tests.runtime.fakes import CornerDetector


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Call `run_predict` in an empty folder with a fake detector. Returns the number of failures, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*sources, detector=None, frames=None, every=1, **options):
        inputs = open_sources(sources, frames=frames, every=every)
        failed = predict_with(detector or CornerDetector(), inputs, **options)
        return failed, *capfd.readouterr()

    return run


def test_annotated_video_keeps_size_rate_and_times(run):
    write_clip(Path("clip.mp4"), 8, sound=True)
    failed, _, err = run("clip.mp4", viz_dir=Path("predictions"))
    assert failed == 0
    images, times, metadata = read_clip(Path("predictions/clip.mp4"))
    _, source_times, _ = read_clip(Path("clip.mp4"))
    assert (images[0].shape, metadata["rate"], metadata["sound"]) == ((32, 48, 3), 25, 0)
    assert times == pytest.approx(source_times)
    assert [path.name for path in Path("predictions").iterdir()] == ["clip.mp4"]
    assert "clip.mp4: the sound is not copied" in err
    assert "clip.mp4: 8 frames, a in 8, b in 8 → predictions/clip.mp4" in err


def test_annotated_video_keeps_the_shape_of_pixels_and_boxes_stay_on_the_decoded_ones(run):
    write_clip(Path("clip.mp4"), 2, pixel_aspect=Fraction(16, 11))
    _, out, _ = run("clip.mp4", viz_dir=Path("predictions"), stdout="jsonl")
    images, _, metadata = read_clip(Path("predictions/clip.mp4"))
    assert (images[0].shape, metadata["pixel_aspect"]) == ((32, 48, 3), Fraction(16, 11))
    write_clip(Path("square.mp4"), 2)
    _, square, _ = run("square.mp4", stdout="jsonl")
    assert out == square.replace("square.mp4", "clip.mp4")


def test_jsonl_has_a_line_per_frame_with_number_and_time(run):
    write_clip(Path("clip.mp4"), 13)
    _, out, _ = run("clip.mp4", stdout="jsonl", batch=4)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["source"], row["frame"], row["time"]) for row in rows] == [
        ("clip.mp4", n, pytest.approx(n / 25)) for n in range(13)
    ]
    assert [row["width"] for row in rows] == [48] * 13
    assert not Path("predictions").exists()


def test_files_are_complete_although_nobody_reads_stdout(run, monkeypatch):
    for n in range(3):
        Image.new("RGB", (20, 10)).save(f"{n}.png")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as closed, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "stdout", closed)
        failed, _, err = run(".", stdout="jsonl", save=[Path("all.jsonl")])
    assert failed == 0
    assert err.count("stdout was closed") == 1
    assert [json.loads(line)["source"] for line in Path("all.jsonl").read_text().splitlines()] == [
        "0.png",
        "1.png",
        "2.png",
    ]
    reader, writer = os.pipe()
    os.close(reader)
    closed = open(writer, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - closing it fails
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(BrokenPipeError):  # nothing else to write
        run(".", stdout="jsonl")
    with suppress(OSError):
        closed.close()


def test_progress_off_a_terminal_is_a_line_per_hundred_frames(run):
    write_clip(Path("clip.mp4"), 210, size=(16, 16))
    _, _, err = run("clip.mp4")
    lines = [line for line in err.splitlines() if line.startswith("clip.mp4 ")]
    assert [line.split()[1] for line in lines] == ["100/210", "200/210", "210/210"]


def test_pictures_after_a_long_video_have_their_lines(run):
    write_clip(Path("clip.mp4"), 30, size=(16, 16))
    Image.new("RGB", (20, 10)).save("photo.png")
    _, _, err = run("clip.mp4", "photo.png")
    assert "photo.png: 1 a (0.75)" in err


@pytest.mark.parametrize(("files", "lines", "summed_up"), [(0, 0, False), (1, 1, False), (3, 3, False), (5, 3, True)])
def test_files_with_more_frames_are_named_or_summed_up(run, files, lines, summed_up):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save("photo.png")
    for n in range(files):
        frames[0].save(f"{n}.gif", save_all=True, append_images=frames[1:])
    failed, out, err = run(".", stdout="jsonl")
    assert failed == 0
    assert len(out.splitlines()) == files + 1
    assert err.count("gif: only the first frame of this animation is used") == lines
    assert (f"of {files} files only the first page or frame was used" in err) is summed_up


def test_sources_with_the_same_name_do_not_overwrite_each_other(run):
    Path("other").mkdir()
    for path in ("clip.mp4", "other/clip.mp4", "clip-2.mp4"):
        write_clip(Path(path), 2)
    Image.new("RGB", (20, 10)).save("clip.png")
    _, _, err = run("clip.mp4", "other/clip.mp4", "clip-2.mp4", "clip.png", viz_dir=Path("out"))
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "clip-2-2.mp4",
        "clip-2.mp4",
        "clip-3.png",
        "clip.mp4",
    ]
    assert err.count("2 frames") == 3


def test_bad_video_does_not_stop_the_others(run):
    Path("bad.mp4").write_bytes(b"no video")
    write_clip(Path("clip.mp4"), 2)
    Image.new("RGB", (20, 10)).save("a.png")
    failed, out, err = run("gone.mp4", "bad.mp4", "clip.mp4", "a.png", stdout="json", viz_dir=Path("out"))
    assert failed == 2
    document = json.loads(out)
    assert [row["source"] for row in document["failed"]] == ["gone.mp4", "bad.mp4"]
    assert [row["source"] for row in document["results"]] == ["clip.mp4", "clip.mp4", "a.png"]
    assert "1 image and 2 frames processed, 2 could not be read" in err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "clip.mp4"]


def test_interrupted_video_leaves_no_partial_file(run):
    write_clip(Path("clip.mp4"), 20)

    class Interrupted(CornerDetector):
        def __call__(self, images):
            if len(self.sizes) == 5:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        run("clip.mp4", detector=Interrupted(), viz_dir=Path("out"))
    assert list(Path("out").iterdir()) == []


def test_a_finished_video_stays_if_the_run_is_interrupted_at_a_later_image(run):
    write_clip(Path("clip.mp4"), 4)
    for number in range(4):
        Image.new("RGB", (20, 10)).save(f"{number}.png")

    class Interrupted(CornerDetector):
        def __call__(self, images):
            if len(self.sizes) == 7:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        run("clip.mp4", *(f"{number}.png" for number in range(4)), detector=Interrupted(), viz_dir=Path("out"))
    assert len(read_clip(Path("out/clip.mp4"))[0]) == 4


def test_memory_does_not_grow_with_the_length_of_a_video(run, monkeypatch):
    import gc

    write_clip(Path("clip.mp4"), 60)
    alive = []

    class Counting(CornerDetector):
        def __call__(self, images):
            from fcos_cli.predict.sources.frames import Frame

            if len(self.sizes) == 40:
                alive.append(sum(type(item) is Frame for item in gc.get_objects()))
            return super().__call__(images)

    run("clip.mp4", detector=Counting(), viz_dir=Path("out"))
    assert alive[0] <= 12


def test_camera_stops_at_the_event_and_its_video_is_complete(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    path, open_file, stop = write_clip(tmp_path / "c.mp4", 200), av.open, Stop()

    def camera(name, *args, **options):
        return open_file(str(path)) if name == "/dev/video0" else open_file(name, *args, **options)

    class Stopping(CornerDetector):
        def __call__(self, images):
            if len(self.sizes) == 9:
                stop.set()
            return super().__call__(images)

    monkeypatch.setattr(av, "open", camera)
    inputs = open_sources(["camera:0"], stop=stop)
    out = tmp_path / "out"
    assert predict_with(Stopping(), inputs, viz_dir=out) == 0
    images, _, _ = read_clip(out / "camera-0.mp4")
    assert 10 <= len(images) <= 20


# ---------------------------------------------------------------- crops


@dataclass
class TwoClasses(CornerDetector):
    facts: Facts = field(
        default_factory=lambda: Facts(ClassTable(("big cat/..", "b"), (1, 2)), ResizeRule("letterbox", (32, 32)))
    )


def test_crops_are_sorted_by_class(run):
    image = np.zeros((10, 20, 3), np.uint8)
    image[0, 0] = (128, 0, 0)  # class 1 scores 0.5
    Image.fromarray(image).save("photo.png")
    run("photo.png", detector=TwoClasses(), crops_dir=Path("crops"), score=0.1)
    files = sorted(path.as_posix() for path in Path("crops").rglob("*.jpg"))
    assert files == ["crops/b/photo-001-b-0.50.jpg", "crops/big-cat/photo-000-big-cat-0.75.jpg"]
    with Image.open(files[0]) as crop:
        assert crop.size == (20, 10)


def test_a_file_called_crops_is_in_the_way_of_crops_only(run):
    Image.new("RGB", (20, 10)).save("photo.png")
    Path("crops").touch()
    check_outputs([], folder=Path())
    run("photo.png", viz_dir=Path("out"))
    with pytest.raises(UsageError, match="crops is not a folder"):
        run("photo.png", crops_dir=Path("crops"))


def test_crops_of_frames_have_the_frame_number(run):
    write_clip(Path("clip.mp4"), 2)
    run("clip.mp4", crops_dir=Path("crops"))
    assert sorted(path.name for path in Path("crops/a").iterdir()) == [
        "clip-000000-000-a-0.75.jpg",
        "clip-000001-000-a-0.75.jpg",
    ]


def test_crops_of_videos_with_long_names_have_the_frame_number(run):
    for number in (1, 2):  # which differ only where they are cut
        write_clip(Path(f"{'x' * 160}{number}.mp4"), 2)
    run(*(f"{'x' * 160}{number}.mp4" for number in (1, 2)), crops_dir=Path("crops"))
    names = sorted(path.name.removeprefix("x" * 143) for path in Path("crops/a").iterdir())
    assert names == [
        "-000000-000-a-0.75.jpg",
        "-000000-2-000-a-0.75.jpg",
        "-000001-000-a-0.75.jpg",
        "-000001-2-000-a-0.75.jpg",
    ]


def test_without_inputs_nothing_is_replaced(run):
    Image.new("RGB", (20, 10)).save("photo.png")
    files = [Path("found.csv"), Path("found.jsonl")]
    run("photo.png", save=files)
    before = [file.read_bytes() for file in files]
    with pytest.raises(DataError, match="no images to process"):
        predict_with(CornerDetector(), iter(()), save=files)
    assert [file.read_bytes() for file in files] == before
    with pytest.raises(DataError, match="no images to process"):
        predict_with(CornerDetector(), iter(()), save=files[1:], resumable=True)
    assert sorted(path.name for path in Path().iterdir()) == ["found.csv", "found.jsonl", "photo.png"]


def test_results_are_not_replaced_if_no_source_can_be_read(run):
    Image.new("RGB", (20, 10)).save("photo.png")
    files = [Path("found.csv"), Path("found.jsonl")]
    run("photo.png", save=files)
    before = [file.read_bytes() for file in files]
    for options in ({"save": files}, {"save": files[1:], "resumable": True}):
        with pytest.raises(DataError, match="none of the sources can be read") as error:
            run("disk/a", "disk/b", **options)
        assert "found.jsonl" in error.value.where
    assert [file.read_bytes() for file in files] == before
    assert run("disk/a", "disk/b", save=[Path("new.csv")])[0] == 2
    assert run("disk/a", "photo.png", save=files)[0] == 1
    assert files[1].read_bytes().count(b"\n") == 2


def test_after_some_pictures_a_line_now_and_then_is_a_sign_of_life(run, monkeypatch):
    for n in range(MAX_IMAGE_LINES + 3):
        Image.new("RGB", (20, 10)).save(f"{n:02}.png")
    assert "so far" not in run(".")[2]
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0)
    lines = [line for line in run(".")[2].splitlines() if "so far" in line]
    assert lines == [f"{n} images so far" for n in range(MAX_IMAGE_LINES + 1, MAX_IMAGE_LINES + 4)]


def test_many_errors_are_counted_instead_of_printed(run):
    gone = [f"{n}.png" for n in range(MAX_ERRORS + 5)]
    failed, out, err = run(*gone, stdout="jsonl")
    assert failed == len(out.splitlines()) == len(gone)
    assert err.count("error: ") == MAX_ERRORS
    assert "further errors are only counted" in err
    assert f"0 images processed, {len(gone)} could not be read" in err


def test_summary_lists_classes_most_frequent_first():
    detections = Detections(
        np.zeros((7, 4), np.float32), np.linspace(0.9, 0.3, 7, dtype=np.float32), np.array([1, 0, 0, 0, 0, 0, 0])
    )
    assert (
        summary(detections, ClassTable(("cat", "dog"), (1, 2)))
        == "6 cat (0.80, 0.70, 0.60, 0.50, 0.40, …), 1 dog (0.90)"
    )
    assert summary(detections.above(0.95), ClassTable(("cat", "dog"), (1, 2))) == "no detections"


# ---------------------------------------------------------------- tracks, classes and limits


def test_tracked_video_is_drawn_and_saved_with_identities(run):
    write_clip(Path("clip.mp4"), 6)
    _, out, err = run(
        "clip.mp4", tracked=True, viz_dir=Path("out"), stdout="jsonl", save=[Path("t.mot.txt"), Path("t.csv")]
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert {tuple(found["id"] for found in row["detections"]) for row in rows} == {(1, 2)}
    assert [line.split(",")[:2] for line in Path("t.mot.txt").read_text().splitlines()] == [
        [str(n), k] for n in range(1, 7) for k in "12"
    ]
    assert Path("t.csv").read_text().splitlines()[1].endswith(",1")
    assert "tracked: 1 a, 1 b → out/clip.mp4" in err
    assert len(read_clip(Path("out/clip.mp4"))[0]) == 6


def test_every_nth_frame_keeps_numbers_and_times_also_in_the_drawn_video(run):
    write_clip(Path("clip.mp4"), 10)
    _, out, _ = run("clip.mp4", every=3, viz_dir=Path("out"), stdout="jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["frame"], row["time"]) for row in rows] == [(n, n / 25) for n in (0, 3, 6, 9)]
    _, times, _ = read_clip(Path("out/clip.mp4"))
    assert times == pytest.approx([0, 0.12, 0.24, 0.36], abs=1e-4)


def test_frames_counts_those_that_are_used(run):
    write_clip(Path("clip.mp4"), 10)
    _, out, err = run("clip.mp4", every=4, frames=2, stdout="jsonl")
    assert [json.loads(line)["frame"] for line in out.splitlines()] == [0, 4]
    assert "2 frames" in err


def test_frames_of_labels_are_compared_with_the_next_that_are_used(tmp_path):
    clip, out = Clip(Path("c.mp4"), Fraction(25)), tmp_path / "out"
    frames = [
        Frame(clip.source, np.full((32, 32, 3), red, np.uint8), Moment(clip, number, Fraction(number)))
        for number, red in ((0, 200), (5, 0), (10, 201))
    ]
    predict_with(CornerDetector(), frames, labels=plan_labels("yolo", out), every=5)
    assert "no b, but in the frames before and after" in (out / "review.csv").read_text()


def test_labels_with_tiles_need_no_more_network_calls_than_detections(tmp_path):
    image, detector, tiling = np.zeros((100, 100, 3), np.uint8), CornerDetector(), Tiling(64)
    labels = plan_labels("yolo", tmp_path / "out")
    predict_with(detector, [Frame(Path("a.png"), image)], labels=labels, tiling=tiling)
    assert sum(detector.sizes) == len(tiling.tiles(100, 100)) + 1
    assert (tmp_path / "out/review.csv").is_file()


def test_only_chosen_classes_and_the_best_of_them_are_reported(run):
    Image.new("RGB", (20, 10), (160, 0, 0)).save("a.png")
    results = [run("a.png", score=0.1, stdout="jsonl", **options)[1] for options in ({"chosen": {1}}, {"limit": 1})]
    assert [[found["class"] for found in json.loads(out)["detections"]] for out in results] == [["b"], ["a"]]
    assert [found["class"] for found in json.loads(run("a.png", score=0.1, stdout="jsonl")[1])["detections"]] == [
        "a",
        "b",
    ]


def test_the_limit_is_per_image_with_tiles_too(run):
    Image.new("RGB", (128, 64), (160, 0, 0)).save("a.png")
    count = {}
    for limit in (None, 1):
        _, out, _ = run("a.png", score=0.1, stdout="jsonl", tiling=Tiling(32), limit=limit)
        count[limit] = [found["score"] for found in json.loads(out)["detections"]]
    assert count[1] == count[None][:1] != count[None]
