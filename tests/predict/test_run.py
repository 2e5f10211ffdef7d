"""From what a user names to files and lines: pictures, videos, crops."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.progress import summary
from fcos_cli.predict.run import run_predict
from fcos_cli.predict.sources import open_sources
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections
from tests.predict.clips import read_clip, write_clip
from tests.runtime.fakes import CornerDetector


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """`run_predict` in an empty folder, with a detector of its own: count of failures, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*sources, detector=None, frames=None, **named):
        options = {"score": None, "pictures": None, "stdout": None, "files": [], "batch": 1, **named}
        failed = run_predict(detector or CornerDetector(), open_sources(sources, frames=frames), **options)
        return failed, *capfd.readouterr()

    return run


def test_a_video_with_boxes_has_the_size_rate_and_times_of_its_source(run):
    write_clip(Path("clip.mp4"), 8, sound=True)
    failed, _, err = run("clip.mp4", pictures=Path("predictions"))
    assert failed == 0
    images, times, facts = read_clip(Path("predictions/clip.mp4"))
    _, before, _ = read_clip(Path("clip.mp4"))
    assert (images[0].shape, facts["rate"], facts["sound"]) == ((32, 48, 3), 25, 0)
    assert times == pytest.approx(before)
    assert [path.name for path in Path("predictions").iterdir()] == ["clip.mp4"]
    assert "clip.mp4: the sound is not copied" in err
    assert "clip.mp4: 8 frames, a in 8, b in 8 → predictions/clip.mp4" in err


def test_a_json_line_per_frame_says_which_and_when(run):
    write_clip(Path("clip.mp4"), 13)
    _, out, _ = run("clip.mp4", stdout="jsonl", batch=4)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["source"], row["frame"], row["time"]) for row in rows] == [
        ("clip.mp4", n, pytest.approx(n / 25)) for n in range(13)
    ]
    assert [row["width"] for row in rows] == [48] * 13
    assert not Path("predictions").exists()


def test_lines_for_people_come_every_hundred_frames_where_there_is_no_terminal(run):
    write_clip(Path("clip.mp4"), 210, size=(16, 16))
    _, _, err = run("clip.mp4")
    lines = [line for line in err.splitlines() if line.startswith("clip.mp4 ")]
    assert [line.split()[1] for line in lines] == ["100/210", "200/210", "210/210"]


def test_pictures_and_videos_of_one_name_do_not_overwrite_each_other(run):
    Path("other").mkdir()
    for path in ("clip.mp4", "other/clip.mp4", "clip-2.mp4"):
        write_clip(Path(path), 2)
    Image.new("RGB", (20, 10)).save("clip.png")
    _, _, err = run("clip.mp4", "other/clip.mp4", "clip-2.mp4", "clip.png", pictures=Path("out"))
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "clip-2-2.mp4",
        "clip-2.mp4",
        "clip-3.png",
        "clip.mp4",
    ]
    assert err.count("2 frames") == 3


def test_one_bad_video_does_not_stop_the_others(run):
    Path("bad.mp4").write_bytes(b"no video")
    write_clip(Path("clip.mp4"), 2)
    Image.new("RGB", (20, 10)).save("a.png")
    failed, out, err = run("gone.mp4", "bad.mp4", "clip.mp4", "a.png", stdout="json", pictures=Path("out"))
    assert failed == 2
    document = json.loads(out)
    assert [row["source"] for row in document["failed"]] == ["gone.mp4", "bad.mp4"]
    assert [row["source"] for row in document["results"]] == ["clip.mp4", "clip.mp4", "a.png"]
    assert "1 pictures and 2 frames done, 2 could not be read" in err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "clip.mp4"]


def test_an_interrupted_video_leaves_nothing_half_written(run):
    write_clip(Path("clip.mp4"), 20)

    class Interrupted(CornerDetector):
        def __call__(self, images):
            if len(self.sizes) == 5:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        run("clip.mp4", detector=Interrupted(), pictures=Path("out"))
    assert list(Path("out").iterdir()) == []


def test_frames_are_not_kept(run, monkeypatch):
    """Constant memory: however long the video is, only a few of its frames are alive."""
    import gc

    write_clip(Path("clip.mp4"), 60)
    alive = []

    class Counting(CornerDetector):
        def __call__(self, images):
            from fcos_cli.predict.frames import Frame

            if len(self.sizes) == 40:
                alive.append(sum(type(thing) is Frame for thing in gc.get_objects()))
            return super().__call__(images)

    run("clip.mp4", detector=Counting(), pictures=Path("out"))
    assert alive[0] <= 12


def test_a_camera_ends_by_its_event_and_its_video_is_whole(tmp_path, monkeypatch):
    import threading

    import av

    path, open_file, stop = write_clip(tmp_path / "c.mp4", 200), av.open, threading.Event()

    def camera(name, *args, **named):
        return open_file(str(path)) if name == "/dev/video0" else open_file(name, *args, **named)

    class Stopping(CornerDetector):
        def __call__(self, images):
            if len(self.sizes) == 9:
                stop.set()
            return super().__call__(images)

    monkeypatch.setattr(av, "open", camera)
    inputs = open_sources(["camera:0"], stop=stop)
    out = tmp_path / "out"
    assert run_predict(Stopping(), inputs, score=None, pictures=out, stdout=None, files=[], batch=1) == 0
    images, _, _ = read_clip(out / "camera-0.mp4")
    assert 10 <= len(images) <= 20


# ---------------------------------------------------------------- crops


@dataclass
class TwoThings(CornerDetector):
    facts: Facts = field(
        default_factory=lambda: Facts(ClassTable(("big cat/..", "b"), (1, 2)), ResizeRule("letterbox", (32, 32)))
    )


def test_what_is_found_is_cut_out_by_class(run):
    image = np.zeros((10, 20, 3), np.uint8)
    image[0, 0] = (128, 0, 0)  # class 1 scores 0.5
    Image.fromarray(image).save("photo.png")
    run("photo.png", detector=TwoThings(), crops=Path("crops"), score=0.1)
    files = sorted(path.as_posix() for path in Path("crops").rglob("*.jpg"))
    assert files == ["crops/b/photo-001-b-0.50.jpg", "crops/big-cat/photo-000-big-cat-0.75.jpg"]
    with Image.open(files[0]) as crop:
        assert crop.size == (20, 10)


def test_crops_of_frames_carry_the_frames_number(run):
    write_clip(Path("clip.mp4"), 2)
    run("clip.mp4", crops=Path("crops"))
    assert sorted(path.name for path in Path("crops/a").iterdir()) == [
        "clip-000000-000-a-0.75.jpg",
        "clip-000001-000-a-0.75.jpg",
    ]


def test_no_picture_at_all_is_a_data_error(run):
    with pytest.raises(DataError):
        run_predict(CornerDetector(), iter(()), score=None, pictures=None, stdout=None, files=[], batch=1)


def test_a_summary_counts_classes_the_most_frequent_first():
    found = Detections(
        np.zeros((7, 4), np.float32), np.linspace(0.9, 0.3, 7, dtype=np.float32), np.array([1, 0, 0, 0, 0, 0, 0])
    )
    assert summary(found, ClassTable(("cat", "dog"), (1, 2))) == "6 cat (0.80, 0.70, 0.60, 0.50, 0.40, …), 1 dog (0.90)"
    assert summary(found.above(0.95), ClassTable(("cat", "dog"), (1, 2))) == "nothing found"
