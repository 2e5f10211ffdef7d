"""Reading frames from videos and cameras, and writing videos, with PyAV (extra `video`).

Notable choices:
- Frames are upright: the rotation in the metadata of phone videos is applied, and not written again.
- Of several video streams, the one that players show is read; a cover picture is none.
- Frames are not stretched to square pixels: boxes are in pixels of the file, and written videos keep their shape.
- Each frame keeps its time, so a variable frame rate is preserved.
- Frames that cannot be decoded are skipped and reported with their time. A video that ends too early is reported too.
- Videos are written as H.264 with 4:2:0 chroma subsampling, which every player supports. Odd sizes, which 4:2:0 does
  not allow, use 4:4:4. Sound is not copied.
- Colours are read with the matrix given in the file; without one, with BT.709 from 720 lines and BT.601 below, as
  players do. They are written as BT.709 and tagged accordingly.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError, FcosError, MissingExtra
from fcos_cli.predict.frames import Clip, Frame, FrameClock, Moment
from fcos_cli.predict.mark import MARK
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.prefetch import prefetch

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".mjpeg"}
)
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_TICKS = 90_000
"""Ticks per second of the time base: frames at 24, 25, 30, 60 and 30000/1001 Hz last a whole number of ticks."""
_BT709, _UNSPECIFIED = 1, 2
"""Colour matrices, numbered as in ITU-T H.273."""
_COVER = 1 << 10
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC."""
_MAX_MISSING = 0.5
"""A video that ends this many seconds before its stated duration is reported as truncated."""


def read_video(
    path: Path, *, frames: int | None = None, stop: threading.Event | None = None
) -> Iterator[Frame | Failure]:
    """Yield the frames of a video, decoded a few ahead in a thread, with a Failure in place of broken frames.

    A path like `camera:0` is a camera (Video4Linux), read until `stop` is set. frames: maximum number of frames. A file
    that is not a video yields one Failure with a DataError, or with MissingExtra if PyAV is not installed.
    """
    return prefetch(_read(path, frames, stop), count=4)


def is_camera(source: str) -> bool:
    """Return whether `source` names a camera: `camera:0`, or a device such as `/dev/video0`."""
    return source.startswith("camera:") or source.startswith("/dev/video")


@contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """Yield an event that is set by the first Ctrl-C. A second Ctrl-C raises KeyboardInterrupt as usual."""
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
    """Encodes frames to an open file; see `open_video`."""

    def __init__(self, av: Any, container: Any, clip: Clip) -> None:
        self._av, self._container, self._clip = av, container, clip
        self._stream: Any = None
        self._last_tick = -1

    def write(self, image: npt.NDArray[np.uint8], time: Fraction) -> None:
        """Append a frame, uint8 [H, W, 3] RGB, shown at `time` in seconds. The first frame sets the size.

        A time that is not later than that of the previous frame is moved to the next tick.
        """
        height, width = image.shape[:2]
        if self._stream is None:
            self._stream = self._add_stream(width, height)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        if (width, height) != (self._stream.width, self._stream.height):  # some cameras change their resolution
            frame = frame.reformat(self._stream.width, self._stream.height)
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace="ITU709")
        self._last_tick = max(round(time * _TICKS), self._last_tick + 1)
        frame.pts, frame.time_base = self._last_tick, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))

    def _add_stream(self, width: int, height: int) -> Any:
        encoder = next((name for name in _ENCODERS if self._is_available(name)), None)
        if encoder is None:
            raise FcosError(
                f"this build of PyAV has none of the encoders {', '.join(_ENCODERS)}", remedy="install another build"
            )
        options = {"crf": "20", "preset": "veryfast"} if encoder == "libx264" else {}
        stream = self._container.add_stream(encoder, rate=self._clip.rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if encoder == "libx264" and (width % 2 or height % 2) else "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.sample_aspect_ratio = self._clip.pixel_aspect
        stream.codec_context.colorspace = _BT709
        if encoder != "libx264":
            stream.bit_rate = int(width * height * float(self._clip.rate) * 0.15)
        return stream

    def _is_available(self, encoder: str) -> bool:
        try:
            self._av.Codec(encoder, "w")
        except ValueError:
            return False
        return True


@contextmanager
def open_video(path: Path, clip: Clip) -> Iterator[VideoWriter]:
    """Open an MP4 writer with the frame rate of `clip` and pixels of its shape. The file appears under its name if the
    block succeeds.

    Raises MissingExtra, UsageError if `path` cannot be written, FcosError if PyAV has no suitable encoder.
    """
    av = _import_av(path)
    with atomic_write(path, binary=True) as file, av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = MARK
        writer = VideoWriter(av, container, clip)
        yield writer
        writer.finish()


def _read(path: Path, max_frames: int | None, stop: threading.Event | None) -> Iterator[Frame | Failure]:
    try:
        av = _import_av(path)
        with _open(av, path) as container:
            try:
                stream = _film(container, path)
                yield from _frames(av, container, stream, _clip(container, stream, path, max_frames), max_frames, stop)
            except (av.FFmpegError, ValueError, OSError) as error:  # damaged files raise any of them
                what = f"reading the video failed ({_one_line(error)})"
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
            "list cameras with `ls /dev/video*`; another program may be using this one"
            if live
            else "copy or download it again: it is truncated, damaged or not a video"
        )
        raise DataError(f"{what} ({_one_line(error)})", where=path, remedy=remedy) from error


def _film(container: Any, path: Path) -> Any:
    """Return the video stream that players show."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _COVER]
    if not streams:
        what = "the file has no video stream" + (", only a cover picture" if container.streams.video else "")
        raise DataError(what, where=path, remedy="name a video or an image")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:  # decoding would crash the process
        raise DataError("the codec of the video is unknown", where=path, remedy="copy, download or convert it again")
    return stream


def _clip(container: Any, stream: Any, path: Path, max_frames: int | None) -> Clip:
    rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
    live = is_camera(str(path))
    total = None if live else stream.frames or None
    if total is None and stream.duration is not None and not live:
        total = round(stream.duration * stream.time_base * rate)
    if max_frames is not None:
        total = min(total or max_frames, max_frames)
    return Clip(path, rate, total, sound=bool(container.streams.audio), live=live)


def _frames(
    av: Any, container: Any, stream: Any, clip: Clip, max_frames: int | None, stop: threading.Event | None
) -> Iterator[Frame | Failure]:
    clock = FrameClock(clip.rate)
    number = broken = 0
    for frame in _decode(av, container, stream):
        if stop is not None and stop.is_set():
            return
        if frame is None or frame.is_corrupt:
            broken += 1
            continue
        if broken:
            yield _broken_frames(clip, broken, clock.time)
            broken = 0
        if not number:
            clip = replace(clip, pixel_aspect=_pixel_aspect(stream, frame))
        time = clock.advance(None if frame.pts is None else frame.pts * Fraction(frame.time_base))
        yield Frame(clip.source, _pixels(frame), Moment(clip, number, time))
        number += 1
        if number == max_frames:
            return
    if broken:
        yield _broken_frames(clip, broken, clock.time)
    if not number:
        raise DataError("no frame can be decoded", where=clip.source, remedy="copy or download the video again")
    duration = None if clip.live else _duration(av, container, stream)
    if duration is not None and float(duration - clock.end) > _MAX_MISSING + float(clock.step):
        what = f"the video ends after {float(clock.end):.2f} s, but should last {float(duration):.2f} s"
        remedy = "it is truncated: copy or download it again"
        yield Failure(clip.source, DataError(what, where=clip.source, remedy=remedy))


def _duration(av: Any, container: Any, stream: Any) -> Fraction | None:
    """Return the seconds that the video should last. The sound may last longer."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    return None if container.duration is None else Fraction(container.duration, av.time_base)


def _decode(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Yield frames in display order, and None for a packet that cannot be decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # damaged container: no further packets can be found
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


def _pixel_aspect(stream: Any, frame: Any) -> Fraction:
    """Return `Clip.pixel_aspect`."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return 1 / aspect if _quarter_turns(frame) % 2 else aspect


def _quarter_turns(frame: Any) -> int:
    """Return 0…3, counterclockwise like rot90."""
    return int(round(frame.rotation / 90) % 4)


def _pixels(frame: Any) -> npt.NDArray[np.uint8]:
    """Return the frame as uint8 [H, W, 3] RGB, upright."""
    is_bt709 = frame.colorspace == _BT709 or (frame.colorspace == _UNSPECIFIED and frame.height >= 720)
    matrix = "ITU709" if is_bt709 else "DEFAULT"  # PyAV's default is the frame's own matrix, or BT.601
    pixels = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    quarter_turns = _quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _broken_frames(clip: Clip, count: int, after: Fraction) -> Failure:
    what = f"{count} broken {'frame' if count == 1 else 'frames'} skipped"
    where = f"{clip.source}, {'at the start' if after < 0 else f'after {float(after):.2f} s'}"
    return Failure(clip.source, DataError(what, where=where, remedy="copy or download the video again"))


def _import_av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra(f"videos need PyAV, which is not installed ({path})", extra="video") from error
    return av


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
