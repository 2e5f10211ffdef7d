"""Videos and cameras → frames, and frames → videos, by PyAV (extra `video`).

Notable choices:
- Frames come upright: the rotation that phones write beside the pixels is applied, and not written again.
- Each frame keeps its time, so a variable frame rate stays what it was.
- What cannot be decoded is left out and told with its time; the rest goes on. So is a video that ends too early.
- H.264 with colours at half resolution, as every player wants it; odd sizes, which that cannot hold, keep full
  resolution. Sound is not copied.
- Colours are read by the matrix that the file names, without one by BT.709 from 720 lines on and by BT.601 below, as
  players do; they are written by BT.709, and the file says so.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError, FcosError, MissingExtra
from fcos_cli.predict.frames import Clip, Frame, Moment
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.prefetch import prefetch

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".mjpeg"}
)
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_TICKS = 90_000
"""Of a second, as videos count them: frames of 24, 25, 30 and 60 Hz last whole ticks, of 30000/1001 Hz too."""
_BT709, _UNNAMED = 1, 2
"""Colour matrices, as ITU-T H.273 numbers them."""
_GAP = 0.5
"""Seconds: a video that is shorter than it says by more than this was cut off."""


def read_video(
    path: Path, *, frames: int | None = None, stop: threading.Event | None = None
) -> Iterator[Frame | Failure]:
    """The frames of a file, decoded a few ahead in a thread; in the place of broken ones a Failure.

    A path like `camera:0` is that camera (Video4Linux), which goes on until `stop` is set. frames: how many at most.
    What is no video gives one Failure: DataError, or MissingExtra without PyAV.
    """
    return prefetch(_read(path, frames, stop), count=4)


def is_camera(source: str) -> bool:
    """Does the user mean a camera: `camera:0`, or Linux's own name for one?"""
    return source.startswith("camera:") or source.startswith("/dev/video")


@contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one interrupts as usual."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def interrupted(_number: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class VideoWriter:
    """What `open_video` yields."""

    def __init__(self, av: Any, container: Any, rate: Fraction) -> None:
        self._av, self._container, self._rate = av, container, rate
        self._stream: Any = None
        self._last = -1

    def write(self, image: npt.NDArray[np.uint8], time: Fraction) -> None:
        """One more frame, uint8 [H, W, 3] RGB, to be seen at `time` in seconds; the first decides the size.

        A time that is not later than the last one's is moved on by a tick.
        """
        height, width = image.shape[:2]
        if self._stream is None:
            self._stream = self._begin(width, height)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        if (width, height) != (self._stream.width, self._stream.height):  # a camera that changes its mind
            frame = frame.reformat(self._stream.width, self._stream.height)
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace="ITU709")
        self._last = max(round(time * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))

    def _begin(self, width: int, height: int) -> Any:
        encoder = next((name for name in _ENCODERS if self._writes(name)), None)
        if encoder is None:
            raise FcosError(f"this PyAV writes none of {', '.join(_ENCODERS)}", remedy="install another build of PyAV")
        options = {"crf": "20", "preset": "veryfast"} if encoder == "libx264" else {}
        stream = self._container.add_stream(encoder, rate=self._rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if encoder == "libx264" and (width % 2 or height % 2) else "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.colorspace = _BT709
        if encoder != "libx264":
            stream.bit_rate = int(width * height * float(self._rate) * 0.15)
        return stream

    def _writes(self, encoder: str) -> bool:
        try:
            self._av.Codec(encoder, "w")
        except ValueError:
            return False
        return True


@contextmanager
def open_video(path: Path, clip: Clip) -> Iterator[VideoWriter]:
    """An MP4 at `path` with the rate of `clip`; it appears when the block ends well.

    Raises MissingExtra, UsageError where `path` cannot be written, FcosError where PyAV has no encoder.
    """
    av = _av(path)
    with atomic_write(path, binary=True) as file, av.open(file, "w", format="mp4") as container:
        writer = VideoWriter(av, container, clip.rate)
        yield writer
        writer.finish()


def _read(path: Path, most: int | None, stop: threading.Event | None) -> Iterator[Frame | Failure]:
    try:
        av = _av(path)
        with _open(av, path) as container:
            try:
                yield from _frames(av, container, _clip(container, path, most), most, stop)
            except (av.FFmpegError, ValueError, OSError) as error:  # as odd as a damaged file can be
                what = f"the video cannot be read any further ({_one_line(error)})"
                raise DataError(what, where=path, remedy="copy or download it again") from error
    except FcosError as error:
        yield Failure(path, error)


def _open(av: Any, path: Path) -> Any:
    name = str(path)
    live = is_camera(name)
    device = f"/dev/video{name.removeprefix('camera:')}" if name.startswith("camera:") else name
    try:
        return av.open(device, format="v4l2" if live else None)
    except (av.FFmpegError, OSError, ValueError) as error:
        what = "the camera cannot be opened" if live else "the video cannot be opened"
        remedy = (
            "list cameras with `ls /dev/video*`; another program may be using it"
            if live
            else "copy or download it again: it is cut off, damaged or no video"
        )
        raise DataError(f"{what} ({_one_line(error)})", where=path, remedy=remedy) from error


def _clip(container: Any, path: Path, most: int | None) -> Clip:
    if not container.streams.video:
        raise DataError("the file has no video stream", where=path, remedy="name a video, or a picture")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # decoding would crash the process
        raise DataError("the video is of no known codec", where=path, remedy="copy or download it again, or convert it")
    rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
    live = is_camera(str(path))
    total = None if live else stream.frames or None
    if total is None and stream.duration is not None and not live:
        total = round(stream.duration * stream.time_base * rate)
    if most is not None:
        total = min(total or most, most)
    return Clip(path, rate, total, sound=bool(container.streams.audio), live=live)


def _frames(
    av: Any, container: Any, clip: Clip, most: int | None, stop: threading.Event | None
) -> Iterator[Frame | Failure]:
    step = 1 / clip.rate
    begin: Fraction | None = None
    at = -step  # time of the last frame
    number = broken = 0
    for frame in _decoded(av, container):
        if stop is not None and stop.is_set():
            return
        if frame is None or frame.is_corrupt:
            broken += 1
            continue
        if broken:
            yield _broken(clip, broken, at)
            broken = 0
        stamp = None if frame.pts is None else frame.pts * Fraction(frame.time_base)
        begin = stamp if begin is None else begin
        # a time that is lacking or goes back, as in damaged files: the usual step
        at = at + step if stamp is None or begin is None or stamp - begin <= at else stamp - begin
        yield Frame(clip.source, _pixels(frame), Moment(clip, number, at))
        number += 1
        if number == most:
            return
    if broken:
        yield _broken(clip, broken, at)
    if not number:
        raise DataError("not one frame can be decoded", where=clip.source, remedy="copy or download the video again")
    length = None if container.duration is None or clip.live else Fraction(container.duration, av.time_base)
    if length is not None and float(length - at - step) > _GAP + float(step):
        ends = f"the video ends after {float(at + step):.2f} s, though it should last {float(length):.2f} s"
        remedy = "it is cut off: copy or download it again"
        yield Failure(clip.source, DataError(ends, where=clip.source, remedy=remedy))


def _decoded(av: Any, container: Any) -> Iterator[Any]:
    """Frames as they are shown; None for a packet that cannot be decoded."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # of the file's structure: nothing behind it can be found
            yield None
            packet = None
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.FFmpegError:
            yield None


def _pixels(frame: Any) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB, upright."""
    high = frame.colorspace == _BT709 or (frame.colorspace == _UNNAMED and frame.height >= 720)
    matrix = "ITU709" if high else "DEFAULT"  # PyAV's default is the frame's own, or BT.601
    pixels = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    turns = round(frame.rotation / 90) % 4  # counterclockwise, as rot90 turns
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _broken(clip: Clip, count: int, after: Fraction) -> Failure:
    what = f"{count} broken {'frame' if count == 1 else 'frames'} left out"
    place = f"{clip.source}, {'at the beginning' if after < 0 else f'after {float(after):.2f} s'}"
    return Failure(clip.source, DataError(what, where=place, remedy="copy or download the video again"))


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra(f"videos need PyAV, which is not installed ({path})", extra="video") from error
    return av


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
