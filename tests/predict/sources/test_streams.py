"""Streams over HTTP and RTSP, from servers on the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("av")

from fcos_cli.errors import DataError, MissingExtra
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources import streams
from fcos_cli.predict.sources.address import Address
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.sources.stop import Stop
from fcos_cli.predict.sources.streams import read_address
from fcos_cli.runtime.detector import detect_batch
from tests.cli_runner import Fcos
from tests.predict.clips import read_clip, shade, write_clip
from tests.predict.sources.servers import content, http_server, jpeg, mjpeg, rtsp_server


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(streams, "PAUSES", (0.05, 0.1))


def red(frame: Frame) -> int:
    return round(float(frame.data[..., 0].mean()) / 10) * 10


def with_login(url: str) -> str:
    return url.replace("://", "://alice:pw@")


def test_every_frame_of_a_slow_stream_is_used_with_its_number_and_time():
    with http_server(cam=mjpeg(40, pause=0.03)) as server:
        frames = list(read_address(Address(f"{server.url}cam"), frames=8))
    numbers = [frame.moment.number for frame in frames]
    assert [red(frame) for frame in frames] == [10 * (n % 20) for n in numbers]
    assert numbers == sorted(set(numbers))
    times = [frame.moment.time for frame in frames]
    assert times[0] == 0 or (numbers[0] > 0 and times[0] > 0)  # several may arrive before the first is taken
    assert times == sorted(set(times))
    assert frames[0].moment.clip.live
    assert frames[0].moment.clip.total is None


def test_the_media_type_decides_before_the_suffix():
    with http_server(live_jpg=mjpeg(40, pause=0.03), a_mp4=content(jpeg(50))) as server:
        stream = list(read_address(Address(f"{server.url}live.jpg"), frames=2))
        (picture,) = read_address(Address(f"{server.url}a.mp4"))
    assert [frame.moment.clip.live for frame in stream] == [True, True]
    assert picture.data == jpeg(50)


def test_a_slow_detector_gets_the_newest_frame_and_is_told(capfd):
    with http_server(cam=mjpeg(1000, pause=0.01)) as server:
        frames = read_address(Address(f"{server.url}cam"), frames=4)
        numbers, elapsed, clock = [], [], []
        for frame in frames:
            numbers.append(frame.moment.number)
            elapsed.append(float(frame.moment.time))
            clock.append(time.monotonic())
            time.sleep(0.2)
    steps = [after - before for before, after in pairwise(numbers)]
    assert min(steps[1:]) >= 2  # the server sends 20 meanwhile, and fewer on a busy machine
    assert elapsed[-1] - elapsed[1] == pytest.approx(clock[-1] - clock[1], abs=0.2)
    assert "frames were dropped" in capfd.readouterr().err


def test_every_nth_frame_of_a_stream():
    with http_server(cam=mjpeg(200, pause=0.02)) as server:
        frames = list(read_address(Address(f"{server.url}cam"), frames=4, every=5))
    assert all(frame.moment.number % 5 == 0 for frame in frames)
    assert frames[0].moment.clip.rate == 5  # web cameras do not say: FFmpeg takes 25


def test_a_broken_stream_is_opened_again_and_given_up_with_an_error(capfd):
    visits = []

    def twice(handler):
        visits.append(handler.path)
        (mjpeg(6) if len(visits) < 5 else lambda h: h.send_error(503))(handler)

    with http_server(cam=twice) as server:
        items = list(read_address(Address(with_login(f"{server.url}cam") + "?t0ken")))
    failure = items.pop()
    assert isinstance(failure, Failure)
    assert "could not be opened again in 0.15 s" in failure.error.what
    assert {frame.moment.clip for frame in items} == {items[0].moment.clip}  # one clip, and so one video
    numbers = [frame.moment.number for frame in items]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] > 6
    err = capfd.readouterr().err
    assert "trying again in 0.05 s" in err
    assert "trying again in 0.1 s" in err
    assert not any(secret in err + str(failure) for secret in ("alice", "pw@", "t0ken"))


def test_a_stream_that_never_opened_is_an_error_at_once():
    started = time.monotonic()
    with pytest.raises(DataError) as caught, http_server(cam=content(b"nothing", "video/mp4")) as server:
        list(read_address(Address(with_login(f"{server.url}cam"))))
    assert "the stream cannot be opened" in caught.value.what
    assert "alice" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert time.monotonic() - started < 5


def test_a_set_event_ends_it_while_it_waits_for_the_network():
    def silent(handler):
        mjpeg(6)(handler)
        time.sleep(3)

    stop = Stop()
    with http_server(cam=silent) as server:
        frames = read_address(Address(f"{server.url}cam"), stop=stop)
        next(frames)
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        list(frames)
        assert time.monotonic() - started < 1.5


def test_a_video_of_known_length_loses_no_frame(tmp_path):
    data = write_clip(tmp_path / "c.mp4", 12, options={"movflags": "faststart"}).read_bytes()
    with http_server(c_mp4=content(data, "video/mp4")) as server:
        frames = []
        for frame in read_address(Address(f"{server.url}c.mp4")):
            frames.append(frame)
            time.sleep(0.01)
    assert [frame.moment.number for frame in frames] == list(range(12))
    assert [float(frame.data[-8:, -8:].mean()) for frame in frames] == pytest.approx(
        [shade(n) for n in range(12)], abs=4
    )
    assert float(frames[-1].moment.time) == pytest.approx(11 / 25)
    assert not frames[0].moment.clip.live


def test_a_transport_stream(tmp_path):
    data = write_clip(tmp_path / "c.ts", 25, codec="libx264").read_bytes()

    def page(handler):
        handler.start("video/mp2t")
        handler.wfile.write(data)

    with http_server(live=page) as server:
        items = list(read_address(Address(f"{server.url}live"), frames=3))
    assert len([item for item in items if isinstance(item, Frame)]) == 3


def test_a_playlist_does_not_open_local_files(tmp_path):
    write_clip(tmp_path / "private.ts", 25, codec="libx264")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/private.ts\n#EXT-X-ENDLIST\n"
    with http_server(a_m3u8=content(playlist.encode(), "application/vnd.apple.mpegurl")) as server:
        items = read_address(Address(f"{server.url}a.m3u8"))
        with pytest.raises(DataError):
            raise next(items).error  # either way, the first that comes is an error


def test_rtsp_with_user_and_password(capfd):
    with rtsp_server(30, password="YWxpY2U6cHc=") as url:
        items = list(read_address(Address(with_login(url)), frames=4))
        assert all(item.data.shape == (48, 64, 3) for item in items)
        assert str(items[0].source) == url
        with pytest.raises(DataError, match="401"):
            list(read_address(Address(url), frames=4))
    assert "alice" not in capfd.readouterr().err


def test_a_missing_pyav_is_exit_code_2(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra), http_server(cam=mjpeg(3)) as server:
        list(read_address(Address(f"{server.url}cam")))


def test_a_stream_without_pyav_does_not_stop_the_other_sources(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with http_server(cam=mjpeg(3), a_jpg=content(jpeg(50))) as server:
        failure, picture = open_sources([f"{server.url}cam", f"{server.url}a.jpg"])
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, MissingExtra)
    assert str(failure.source) == f"{server.url}cam"
    assert picture.data == jpeg(50)


def test_predict_ends_at_frames_with_a_complete_video(fcos: Fcos, model_file):
    with http_server(cam=mjpeg(500, pause=0.02)) as server:
        url = server.url
        flags = ("--frames", 5, "--viz", "--track", "--save", "tracks.mot.txt", "--jsonl", "--model", model_file)
        result = fcos("predict", with_login(f"{url}cam") + "?t0ken", *flags)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["source"] for row in rows] == [f"{url}cam?…"] * 5
    assert len(read_clip(Path("predictions/cam.mp4"))[0]) == 5
    tracks = Path("tracks.mot.txt").read_text()
    assert {int(line.split(",")[0]) - 1 for line in tracks.splitlines()} <= {row["frame"] for row in rows}
    assert not any(secret in result.out + result.err + tracks for secret in ("alice", "pw@", "t0ken"))


def test_ctrl_c_ends_a_stream_with_a_complete_video(fcos: Fcos, model_file):
    with http_server(cam=mjpeg(10_000, pause=0.02)) as server:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        result = fcos("predict", f"{server.url}cam", "--viz", "--jsonl", "--model", model_file)
    assert result.code == 0, result.err
    rows = result.out.splitlines()
    assert len(rows) > 1
    assert len(read_clip(Path("predictions/cam.mp4"))[0]) == len(rows)


def test_sigterm_ends_the_run_with_complete_outputs(fcos: Fcos, model_file):
    with http_server(cam=mjpeg(10_000, pause=0.02), a_jpg=content(jpeg(50))) as server:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        flags = ("--viz", "--save", "day.jsonl", "--model", model_file)
        result = fcos("predict", f"{server.url}cam", f"{server.url}a.jpg", *flags)
    assert result.code == 143, result.err
    rows = [json.loads(line) for line in Path("day.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} == {f"{server.url}cam"}
    assert len(read_clip(Path("predictions/cam.mp4"))[0]) == len(rows) > 1


@pytest.mark.parametrize("name", ["a.jpg", "c.mp4"])
def test_ctrl_c_between_pictures_or_frames_of_a_video_keeps_earlier_results(
    fcos: Fcos, model_file, tmp_path, monkeypatch, name
):
    data = write_clip(tmp_path / "c.mp4", 30, options={"movflags": "faststart"}).read_bytes()
    calls = []

    def detect(*arguments):
        calls.append(None)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return detect_batch(*arguments)

    with http_server(a_jpg=content(jpeg(50)), c_mp4=content(data, "video/mp4")) as server:
        line = ("predict", *[f"{server.url}{name}"] * 6, "--save", "found.csv", "--model", model_file)
        assert fcos(*line).code == 0
        before = Path("found.csv").read_bytes()
        monkeypatch.setattr("fcos_cli.predict.pipeline.detect_batch", detect)
        result = fcos(*line)
    assert (result.code, result.err.splitlines()[-1]) == (130, "interrupted")
    assert Path("found.csv").read_bytes() == before


def test_newest_keeps_one_frame_and_counts_the_others():
    newest, stop = streams.Newest(), Stop()
    for number in range(3):
        newest.put(number)  # type: ignore[arg-type]
    assert (newest.take(stop), newest.dropped) == (2, 2)
    newest.fail(DataError("over"))
    assert newest.take(stop) is None
    newest.close()
    assert newest.wait_closed(10)
