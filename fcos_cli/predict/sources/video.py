"""Reading frames from videos and cameras with PyAV (extra `video`).

Notable choices:
- Frames are upright: the rotation in the metadata of phone videos is applied, and not written again.
- Of several video streams, the one that players show is read; a cover picture does not count.
- Frames are not stretched to square pixels: boxes are in pixels of the file.
- Each frame keeps its time, so a variable frame rate is preserved.
- Frames that cannot be decoded are skipped and reported with their time. A video that ends too early is reported too.
- Colours are read with the matrix given in the file; without one, with BT.709 from 720 lines and BT.601 below, as
  players do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.errors import DataError, FcosError, MissingExtra, one_line
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.address import Source
from fcos_cli.predict.sources.frames import Clip, Frame, FrameClock, Moment
from fcos_cli.predict.sources.prefetch import prefetch
from fcos_cli.predict.sources.stop import Stop

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".mjpeg"}
)
_BT709, _UNSPECIFIED = 1, 2
"""Colour matrices, numbered as in ITU-T H.273."""
_COVER = 1 << 10
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC."""
_FILE = "file:"
"""FFmpeg takes what is before the first colon of a name for a protocol: `2024-05-01T10:30.mp4`."""
_MAX_MISSING = 0.5
"""A video that ends this many seconds before its stated duration is reported as truncated."""


def read_video(
    path: Path, *, frames: int | None = None, every: int = 1, stop: Stop | None = None
) -> Iterator[Frame | Failure]:
    """Yield the frames of a video, decoded a few ahead in a thread, with a Failure in place of broken frames.

    A path like `camera:0` is a camera (Video4Linux), read until `stop` is set. frames: maximum number of frames. every:
    yield frames 0, `every`, 2 · `every` …, which keep their numbers and times. A file that is not a video yields one
    Failure with a DataError, or with MissingExtra if PyAV is not installed.
    """
    return prefetch(_read(path, frames, every, stop), count=4)


def is_camera(source: str) -> bool:
    """Return whether `source` names a camera: `camera:0`, or a device such as `/dev/video0`."""
    return source.startswith("camera:") or source.startswith("/dev/video")


def _read(path: Path, max_frames: int | None, every: int, stop: Stop | None) -> Iterator[Frame | Failure]:
    with stop.ends_this() if stop and is_camera(str(path)) else nullcontext():
        try:
            container = _open(import_av(path), path)
        except FcosError as error:
            yield Failure(path, error)
            return
        yield from read_container(container, path, frames=max_frames, every=every, stop=stop)


def read_container(
    container: Any, source: Source, *, frames: int | None, every: int, stop: Stop | None
) -> Iterator[Frame | Failure]:
    """Yield the frames of an open container of PyAV, and close it. The rest is as in `read_video`."""
    import av

    try:
        with container:
            try:
                stream = find_film(container, source)
                clip = _clip(container, stream, source, frames, every)
                yield from _limited(_frames(av, container, stream, clip, every, stop), frames)
            except (av.FFmpegError, ValueError, OSError) as error:  # damaged files raise any of them
                known = isinstance(source, Path)  # for an address, the text of the error may quote the password
                what = f"reading the video failed ({_text_of(error) if known else reason_of(error)})"
                cause = error if known else None
                raise DataError(what, where=source, remedy="copy or download it again") from cause
    except FcosError as error:
        yield Failure(source, error)


def _open(av: Any, path: Path) -> Any:
    name = str(path)
    live = is_camera(name)
    device = f"/dev/video{name.removeprefix('camera:')}" if name.startswith("camera:") else name
    try:
        return av.open(device, format="v4l2") if live else av.open(f"{_FILE}{name}")  # a name may have a colon
    except (av.FFmpegError, OSError, ValueError) as error:
        what = "the camera cannot be opened" if live else "the video cannot be opened"
        remedy = (
            "list cameras with `ls /dev/video*`; another program may be using this one"
            if live
            else "copy or download it again: it is truncated, damaged or not a video"
        )
        raise DataError(f"{what} ({_text_of(error)})", where=path, remedy=remedy) from error


def find_film(container: Any, path: Source) -> Any:
    """Return the video stream that players show. Raises DataError if there is none that can be decoded."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _COVER]
    if not streams:
        what = "the file has no video stream" + (", only a cover picture" if container.streams.video else "")
        raise DataError(what, where=path, remedy="name a video or an image")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:  # decoding would crash the process
        raise DataError("the codec of the video is unknown", where=path, remedy="copy, download or convert it again")
    return stream


def _clip(container: Any, stream: Any, path: Source, max_frames: int | None, every: int) -> Clip:
    rate = rate_of(stream)
    live = is_camera(str(path))
    total = None if live else stream.frames or None
    if total is None and stream.duration is not None and not live:
        total = round(stream.duration * stream.time_base * rate)
    total = None if total is None else -(-total // every)
    if max_frames is not None:
        total = min(total or max_frames, max_frames)
    return Clip(path, rate / every, total, sound=bool(container.streams.audio), live=live)


def _limited(items: Iterator[Frame | Failure], frames: int | None) -> Iterator[Frame | Failure]:
    """Yield items until there were that many frames."""
    count = 0
    for item in items:
        yield item
        count += isinstance(item, Frame)
        if count == frames:
            return


def rate_of(stream: Any) -> Fraction:
    """Frames per second of the file."""
    return Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)


def _frames(
    av: Any, container: Any, stream: Any, clip: Clip, every: int, stop: Stop | None
) -> Iterator[Frame | Failure]:
    clock = FrameClock(rate_of(stream))
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
            clip = replace(clip, pixel_aspect=pixel_aspect(stream, frame))
        base = Fraction(frame.time_base or 0)
        time = clock.advance(None if frame.pts is None else frame.pts * base)
        end = time + max(clock.step, frame.duration * base)  # a still at the end may be one frame of seconds
        if number % every == 0:
            yield Frame(clip.source, pixels_of(frame), Moment(clip, number, time))
        number += 1
    if broken:
        yield _broken_end(clip, broken, clock.time, stop)
    if not number:
        raise DataError("no frame can be decoded", where=clip.source, remedy="copy or download the video again")
    if not clip.live:
        yield from _missing_end(clip, end, clock.step, _duration(av, container, stream))


def _missing_end(clip: Clip, end: Fraction, step: Fraction, duration: Fraction | None) -> Iterator[Failure]:
    """Yield a Failure if the video should last longer than until the end of its last frame."""
    if duration is not None and float(duration - end) > _MAX_MISSING + float(step):
        what = f"the video ends after {float(end):.2f} s, but should last {float(duration):.2f} s"
        remedy = "it is truncated: copy or download it again"
        yield Failure(clip.source, DataError(what, where=clip.source, remedy=remedy))


def _duration(av: Any, container: Any, stream: Any) -> Fraction | None:
    """Return the seconds that the video should last, None if only the longest of several streams is known (Matroska):
    sound and subtitles may last longer.
    """
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    known = container.duration is not None and len(container.streams) == 1
    return Fraction(container.duration, av.time_base) if known else None


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


def pixel_aspect(stream: Any, frame: Any) -> Fraction:
    """Return `Clip.pixel_aspect` of a stream and its first frame."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return 1 / aspect if _quarter_turns(frame) % 2 else aspect


def _quarter_turns(frame: Any) -> int:
    """Return 0…3, counterclockwise like rot90."""
    return int(round(frame.rotation / 90) % 4)


def pixels_of(frame: Any) -> npt.NDArray[np.uint8]:
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


def _broken_end(clip: Clip, count: int, after: Fraction, stop: Stop | None) -> Failure:
    """The Failure for broken frames at the end. Raises DataError for a camera that nobody stopped: it is gone."""
    if not clip.live or (stop is not None and stop.is_set()):
        return _broken_frames(clip, count, after)
    what, remedy = "the camera stopped sending pictures", "check its cable, and run it again"
    raise DataError(what, where=clip.source, remedy=remedy)


def import_av(path: Source) -> Any:
    """Return the module `av`. Raises MissingExtra, naming what needs it, if PyAV is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtra("videos need PyAV, which is not installed", extra="video", where=path) from error
    return av


def _text_of(error: BaseException) -> str:
    return one_line(error, most=200).replace(f"'{_FILE}", "'")


def reason_of(error: BaseException) -> str:
    """What went wrong, but not where: the whole text of an error of PyAV quotes the address."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
