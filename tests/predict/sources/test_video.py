from __future__ import annotations

import runpy
import sys
import threading
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.errors import DataError, MissingExtra
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources import video
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.sources.stop import Stop
from fcos_cli.predict.sources.video import is_camera, read_video
from tests.predict import clips
from tests.predict.clips import SIZE, add_cover, hold_upright, put_cover_first, shade, write_clip

pytest.importorskip("av")


def read_frames(path: Path, **options) -> list[Frame]:
    items = list(read_video(path, **options))
    assert all(isinstance(item, Frame) for item in items), items
    return items


def grey_level(image: np.ndarray) -> float:
    """Grey level outside the red square."""
    return float(image[-8:, -8:].mean())


def test_frames_have_number_and_time(tmp_path):
    frames = read_frames(write_clip(tmp_path / "c.mp4", 13))
    assert [f.moment.number for f in frames] == list(range(13))
    assert float(frames[12].moment.time) == pytest.approx(0.48)
    assert all(f.source == tmp_path / "c.mp4" and f.data.shape == (*SIZE[::-1], 3) for f in frames)
    assert [grey_level(f.data) for f in frames] == pytest.approx([shade(n) for n in range(13)], abs=4)
    clip = frames[0].moment.clip
    assert (clip.rate, clip.total, clip.sound, clip.live) == (25, 13, False, False)


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times = [Fraction(n, 1000) for n in (0, 40, 200, 210, 900)]
    frames = read_frames(write_clip(tmp_path / "c.mp4", 5, times=times))
    assert [f.moment.time for f in frames] == times


def test_rotation_of_phone_videos_is_applied(tmp_path):
    path = write_clip(tmp_path / "c.mp4", 1)
    assert read_frames(path)[0].data.shape == (32, 48, 3)
    hold_upright(path)
    turned = read_frames(path)[0].data
    assert turned.shape == (48, 32, 3)
    # a quarter turn clockwise brings the red square from the top left to the top right
    assert turned[3, -4, 0] - turned[3, -4, 1].astype(int) > 100
    assert abs(int(turned[3, 3, 0]) - int(turned[3, 3, 1])) < 40


def test_cover_picture_is_not_taken_for_the_film(tmp_path):
    import av

    first = write_clip(tmp_path / "first.mp4", 5, cover=True)
    put_cover_first(first)
    with av.open(str(first)) as container:
        assert container.streams.video[0].codec.name == "mjpeg"  # what the test is about
    for path in (first, *(write_clip(tmp_path / name, 5, cover=True) for name in ("last.mp4", "attached.mkv"))):
        frames = read_frames(path)
        assert [grey_level(f.data) for f in frames] == pytest.approx([shade(n) for n in range(5)], abs=4)
        assert frames[0].moment.clip.rate == 25
        assert frames[0].moment.clip.total in (5, None)  # not 1


def test_file_with_nothing_but_a_cover_is_a_data_error(tmp_path):
    import av

    with av.open(str(tmp_path / "music.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        add_cover(container)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        tone.sample_rate = 8000
        container.mux([*sound.encode(tone), *sound.encode(None)])
    (failure,) = read_video(tmp_path / "music.mp4")
    assert failure.error.what == "the file has no video stream, only a cover picture"


def test_one_of_two_films_in_a_file_is_read_from_start_to_end(tmp_path):
    import av

    with av.open(str(tmp_path / "c.mkv"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for stream, value in zip(streams, (60, 180), strict=True):
            for n in range(4):
                frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), value, np.uint8), format="rgb24")
                frame.pts, frame.time_base = n, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    frames = read_frames(tmp_path / "c.mkv")
    assert [grey_level(f.data) for f in frames] == pytest.approx([grey_level(frames[0].data)] * 4, abs=1)


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv"])
def test_sound_may_last_longer_than_the_film(tmp_path, name):
    import av

    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        sound = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*stream.encode(frame), *stream.encode(None)])
        for n in range(12):  # 3 s
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 8000, 2048 * n
            container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
    assert len(read_frames(tmp_path / name)) == 1


def test_the_last_frame_may_be_shown_for_seconds(tmp_path):
    import av

    with av.open(str(tmp_path / "c.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            for packet in stream.encode(frame):
                packet.duration = 125 if n == 4 else 1  # 5 s
                container.mux(packet)
        for packet in stream.encode(None):
            packet.duration = 125
            container.mux(packet)
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert container.streams.video[0].duration * container.streams.video[0].time_base > 5  # what the test is about
    assert len(read_frames(tmp_path / "c.mp4")) == 5


def test_pixels_that_are_not_square_are_not_stretched(tmp_path):
    wide = Fraction(16, 11)
    path = write_clip(tmp_path / "c.mp4", 2, pixel_aspect=wide)
    frames = read_frames(path)
    assert {frame.data.shape for frame in frames} == {(32, 48, 3)}
    assert {frame.moment.clip.pixel_aspect for frame in frames} == {wide}
    hold_upright(path)
    (upright,) = {frame.moment.clip for frame in read_frames(path)}
    assert upright.pixel_aspect == 1 / wide
    assert read_frames(write_clip(tmp_path / "square.avi", 1))[0].moment.clip.pixel_aspect == 1


@pytest.mark.parametrize(
    ("tagged", "written", "size"),
    [(1, "ITU709", (64, 48)), (6, "ITU601", (64, 48)), (2, "ITU709", (1280, 720)), (2, "ITU601", (64, 48))],
)
def test_colour_matrix_is_that_of_the_file_or_the_default_of_players(tmp_path, tagged, written, size):
    import av

    with av.open(str(tmp_path / "c.mp4"), "w") as container:
        stream = container.add_stream("mpeg4" if tagged == 2 else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.colorspace = tagged
        frame = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), (200, 60, 40), np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=written)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,) = read_frames(tmp_path / "c.mp4")
    np.testing.assert_allclose(frame.data.mean((0, 1)), (200, 60, 40), atol=5)


@pytest.mark.parametrize("name", ["2024-05-01T10:30:00.mp4", "http:host.mp4", "disk:1/c.mp4"])
def test_a_name_with_a_colon_is_no_address(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    write_clip(tmp_path / "c.mp4", 2).rename(name)
    assert len(read_frames(Path(name))) == 2
    Path(name).unlink()
    (failure,) = read_video(Path(name))
    assert "file:" not in failure.error.what


def test_number_of_frames_can_be_limited(tmp_path):
    frames = read_frames(write_clip(tmp_path / "c.mp4", 10), frames=3)
    assert len(frames) == frames[0].moment.clip.total == 3


def test_a_set_event_ends_the_reading(tmp_path):
    stop = Stop()
    frames = read_video(write_clip(tmp_path / "c.mp4", 100), stop=stop)
    next(frames)
    stop.set()
    assert len(list(frames)) < 10


def test_decoding_runs_a_few_frames_ahead_and_no_further(tmp_path):
    frames = read_video(write_clip(tmp_path / "c.mp4", 60))
    before = threading.active_count()
    next(frames)
    frames.close()
    assert threading.active_count() <= before


def packets(path: Path) -> list[tuple[int, int]]:
    import av

    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


def test_broken_frames_are_reported_and_skipped(tmp_path):
    path = write_clip(tmp_path / "c.avi", 10, codec="mjpeg")
    data = bytearray(path.read_bytes())
    for begin, size in packets(path)[4:6]:
        data[begin : begin + size] = b"\0" * size
    path.write_bytes(data)
    items = list(read_video(path))
    (failure,) = [item for item in items if isinstance(item, Failure)]
    assert items.index(failure) == 4
    assert failure.error.what == "2 broken frames skipped"
    assert "after 0.12 s" in failure.error.where
    shades = [grey_level(item.data) for item in items if isinstance(item, Frame)]
    assert shades == pytest.approx([shade(n) for n in (0, 1, 2, 3, 6, 7, 8, 9)], abs=4)
    assert float(items[-1].moment.time) == pytest.approx(0.36)


def test_truncated_video_yields_its_frames_and_is_reported(tmp_path):
    path = write_clip(tmp_path / "c.mp4", 50, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: packets(path)[20][0]])
    items = list(read_video(path))
    assert sum(isinstance(item, Frame) for item in items) == 20
    assert isinstance(items[-1], Failure)
    assert any("should last 2.00 s" in str(item.error) for item in items if isinstance(item, Failure))


@pytest.mark.parametrize(("name", "codec"), [("c.mp4", "mpeg4"), ("c.avi", "mjpeg"), ("c.mkv", "mpeg4")])
def test_damaged_video_gives_failures_and_increasing_times(tmp_path, name, codec):
    random = np.random.default_rng(0)
    whole = write_clip(tmp_path / name, 6, codec=codec).read_bytes()
    failures = 0
    for _ in range(15):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 20):
            damaged[place] = random.integers(256)
        (tmp_path / name).write_bytes(damaged)
        items = list(read_video(tmp_path / name))
        failures += sum(isinstance(item, Failure) for item in items)
        times = [item.moment.time for item in items if isinstance(item, Frame)]
        assert times == sorted(set(times))
        assert min(times, default=0) >= 0
    assert failures > 0


def test_video_without_index_is_a_data_error(tmp_path):
    path = write_clip(tmp_path / "c.mp4", 10)
    path.write_bytes(path.read_bytes()[:-300])
    (failure,) = read_video(path)
    assert isinstance(failure.error, DataError)
    assert failure.error.where == str(path)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 5000])
def test_file_that_is_not_a_video_is_a_data_error(tmp_path, content):
    (tmp_path / "c.mp4").write_bytes(content)
    (failure,) = read_video(tmp_path / "c.mp4")
    assert isinstance(failure.error, DataError)


def test_audio_file_is_a_data_error(tmp_path):
    import wave

    with wave.open(str(tmp_path / "c.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 800)
    (failure,) = read_video(tmp_path / "c.mp4")
    assert failure.error.what == "the file has no video stream"


def test_missing_camera_is_a_data_error():
    (failure,) = read_video(Path("camera:63"))
    assert isinstance(failure.error, DataError)
    assert "camera" in failure.error.what


def test_camera_is_opened_by_number_and_has_no_length(tmp_path, monkeypatch):
    import av

    opened = []
    open_file, path = av.open, write_clip(tmp_path / "c.mp4", 5)
    monkeypatch.setattr(av, "open", lambda name, format=None: (opened.append((name, format)), open_file(str(path)))[1])
    frames = read_frames(Path("camera:2"))
    assert opened == [("/dev/video2", "v4l2")]
    assert (frames[0].moment.clip.live, frames[0].moment.clip.total) == (True, None)
    assert str(frames[0].source) == "camera:2"


def test_a_camera_that_is_unplugged_is_a_failure_that_names_it(tmp_path, monkeypatch):
    import av

    open_file, decode, path = av.open, video._decode, write_clip(tmp_path / "c.mp4", 5)

    def unplugged(*arguments):
        yield from islice(decode(*arguments), 3)
        yield None

    monkeypatch.setattr(av, "open", lambda _name, **_options: open_file(str(path)))
    monkeypatch.setattr(video, "_decode", unplugged)
    *frames, failure = read_video(Path("camera:2"))
    assert len(frames) == 3
    assert (failure.error.what, failure.error.where) == ("the camera stopped sending pictures", "camera:2")


def test_is_camera():
    assert is_camera("camera:0")
    assert is_camera("/dev/video1")
    assert not is_camera("camera.mp4")


def test_missing_pyav_is_reported_with_the_extra(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "c.mp4", 1)
    monkeypatch.setitem(sys.modules, "av", None)
    (failure,) = read_video(path)
    assert isinstance(failure.error, MissingExtra)
    assert "fcos-cli[video]" in failure.error.remedy


def test_modules_that_also_test_other_things_can_be_imported_without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "write_clip" in runpy.run_path(clips.__file__)
