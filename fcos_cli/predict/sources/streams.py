"""Reading streams (RTSP, HTTP) and pictures by their address. Streams need PyAV (extra `video`).

Notable choices:
- A stream without an end is live: a thread keeps reading it, and only the newest frame is kept. If the detector is
  slower, frames are dropped, and the numbers of the others show where. A video of known length, at an http address,
  loses none.
- The time of a live frame is when it arrived, because the clocks of streams jump, at least when they start again.
- A broken connection is opened again after growing pauses. After the last one, the stream has failed.
- FFmpeg may use the protocols of the address only. A playlist that names a local file does not get it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fcos_cli.console import say, warn
from fcos_cli.errors import DataError, FcosError
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.address import Address
from fcos_cli.predict.sources.frames import Clip, Frame, Moment
from fcos_cli.predict.sources.prefetch import prefetch
from fcos_cli.predict.sources.remote import TIMEOUT, connect
from fcos_cli.predict.sources.stop import Stop
from fcos_cli.predict.sources.video import (
    VIDEO_SUFFIXES,
    find_film,
    import_av,
    pixel_aspect,
    pixels_of,
    rate_of,
    read_container,
    reason_of,
)

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each attempt to open a broken stream again. A frame that arrives starts over with the first."""
POLL = 0.1
"""Seconds between two checks whether the user wants to stop."""
_STREAM_TYPES = ("video/", "multipart/", "application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl")
_PROTOCOLS = {"http": "http,https,httpproxy,tcp,tls,crypto", "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto,http"}


def read_address(
    address: Address, *, frames: int | None = None, every: int = 1, stop: Stop | None = None
) -> Iterator[Frame | Failure]:
    """Yield the picture, or the frames of the stream, at an address.

    frames, every, stop: as in `open_sources`. Raises DataError, during iteration, if nothing can be read there, and
    MissingExtra for a stream without PyAV. What breaks later is a Failure.
    """
    address.check()
    stop = stop or Stop()
    if address.parts.scheme in ("http", "https"):
        remote = connect(address)
        try:
            if not _is_stream(address, remote.kind):
                yield Frame(address, remote.read(stop))
                return
        finally:
            remote.close()
    yield from _read_stream(address, frames, every, stop)


def _is_stream(address: Address, kind: str) -> bool:
    """By the media type; if that says nothing, by the suffix. Anything else is for the decoder of pictures to judge."""
    if kind.startswith(_STREAM_TYPES):  # first: cameras call their stream live.jpg, too
        return True
    return not kind.startswith("image/") and address.suffix.lower() in VIDEO_SUFFIXES | {".m3u8"}


def _read_stream(address: Address, frames: int | None, every: int, stop: Stop) -> Iterator[Frame | Failure]:
    container = _open(address)
    if container.duration is not None:
        yield from prefetch(read_container(container, address, frames=frames, every=every, stop=None), count=4)
        return
    with stop.ends_this():
        yield from _read_live(address, container, frames, every, stop)


def _read_live(
    address: Address, container: Any, frames: int | None, every: int, stop: Stop
) -> Iterator[Frame | Failure]:
    newest = Newest()
    reader = threading.Thread(
        target=_keep_reading, args=(address, container, newest, every), name="fcos-stream", daemon=True
    )
    reader.start()
    used = 0
    try:
        while (arrived := newest.take(stop)) is not None:
            yield Frame(address, pixels_of(arrived.image), Moment(arrived.clip, arrived.number, arrived.time))
            used += 1
            if used == frames:
                return
    finally:
        newest.close()
        reader.join(POLL)  # a thread that waits for the network ends later, by itself
        if newest.dropped:
            count = "1 frame was" if newest.dropped == 1 else f"{newest.dropped} frames were"
            say(f"{address}: {count} dropped, because the detector is slower than the stream")
    if newest.error is not None:
        yield Failure(address, newest.error)


@dataclass(frozen=True)
class Arrived:
    """A frame of FFmpeg, its number from 0, and the seconds since the first."""

    clip: Clip
    image: Any
    number: int
    time: Fraction


class Newest:
    """The newest frame, handed from the thread that reads to the one that uses it.

    closed: whether nobody waits any more. dropped: frames that were replaced before anybody took them. error: why the
    stream ended.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Arrived | None = None
        self.closed, self.dropped = False, 0
        self.error: FcosError | None = None

    def put(self, frame: Arrived) -> None:
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify_all()

    def take(self, stop: Stop) -> Arrived | None:
        """Wait for a frame. Return None once the stream has failed or `stop` is set."""
        with self._changed:
            while self._frame is None and self.error is None and not stop.is_set():
                self._changed.wait(POLL)
            frame, self._frame = self._frame, None
            return None if stop.is_set() else frame

    def fail(self, error: FcosError) -> None:
        with self._changed:
            self.error = error
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed, self._frame = True, None
            self._changed.notify_all()

    def wait_closed(self, seconds: float) -> bool:
        """Wait that long, or until nobody waits for frames any more. Return whether nobody does."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, seconds)
            return self.closed


def _keep_reading(address: Address, container: Any, newest: Newest, every: int) -> None:
    """Read until `newest` is closed, opening the stream again when it breaks. Never raises."""
    progress = _Progress(address, newest, every)
    failures, reason = 0, "the stream ended"
    current: Any = container
    while True:
        before = progress.number
        try:
            current = current or _open(address)
            with current:
                progress.read(current)
            reason = "the stream ended"
        except FcosError as error:
            reason = error.what
        except Exception as error:  # whatever damaged packets raise; the text may quote the address
            reason = f"the stream broke ({reason_of(error)})"
        current = None
        failures = 1 if progress.number > before else failures + 1
        if newest.closed:
            return
        if failures > len(PAUSES):
            what = f"{reason}, and could not be opened again in {sum(PAUSES):g} s"
            newest.fail(DataError(what, where=address, remedy="check the network and the camera, and run it again"))
            return
        pause = PAUSES[failures - 1]
        warn(f"{address}: {reason}; trying again in {pause:g} s")
        if newest.wait_closed(pause):
            return


class _Progress:
    """What is kept when a stream is opened again: the number of the next frame, and the clock."""

    def __init__(self, address: Address, newest: Newest, every: int) -> None:
        self.address, self.newest, self.every = address, newest, every
        self.number = 0
        self._clip: Clip | None = None
        self._started = 0.0
        self._last = Fraction(-1)

    def read(self, container: Any) -> None:
        """Hand on the frames of a connection until it ends or nobody wants them."""
        film = find_film(container, self.address)
        film.thread_type = "SLICE"  # frame threads would hold several frames back
        for image in container.decode(film):
            if self.newest.closed:
                return
            if image.is_corrupt:
                continue
            if self._clip is None:
                rate = rate_of(film) / self.every
                self._clip = Clip(self.address, rate, live=True, pixel_aspect=pixel_aspect(film, image))
                self._started = time.monotonic()
            if self.number % self.every == 0:
                self.newest.put(Arrived(self._clip, image, self.number, self._now()))
            self.number += 1

    def _now(self) -> Fraction:
        """Milliseconds since the first frame, in seconds; increasing."""
        elapsed = Fraction(round((time.monotonic() - self._started) * 1000), 1000)
        self._last = max(elapsed, self._last + Fraction(1, 1000)) if self._last >= 0 else Fraction(0)
        return self._last


def _open(address: Address) -> Any:
    av = import_av(address)
    protocols = _PROTOCOLS["rtsp" if address.parts.scheme.startswith("rtsp") else "http"]
    options = {"protocol_whitelist": protocols}
    if address.parts.scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # over UDP, lost packets break pictures
    try:
        return av.open(address.url, options=options, timeout=TIMEOUT)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = f"no answer within {TIMEOUT:g} s" if isinstance(error, av.error.ExitError) else reason_of(error)
        remedy = "check the address, and user and password if it needs them"
        raise DataError(f"the stream cannot be opened ({reason})", where=address, remedy=remedy) from None
