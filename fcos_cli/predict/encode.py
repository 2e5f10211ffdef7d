"""Writing videos with PyAV (extra `video`).

Notable choices:
- H.264 with 4:2:0 chroma subsampling, which every player supports. Odd sizes, which 4:2:0 does not allow, use 4:4:4;
  where only OpenH264 can encode, which has no 4:4:4, frames of odd size are scaled by one pixel.
- Colours are written as BT.709 and tagged accordingly.
- Each frame has its own time, so a variable frame rate is preserved. Pixels keep the shape they have in the source.
- Sound is not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import FcosError
from fcos_cli.predict.mark import MARK
from fcos_cli.predict.sources.frames import Clip
from fcos_cli.predict.sources.video import import_av

_ENCODERS = ("libx264", "libopenh264")
_TICKS = 90_000
"""Ticks per second of the time base: frames at 24, 25, 30, 60 and 30000/1001 Hz last a whole number of ticks."""
_BT709 = 1
"""The colour matrix, numbered as in ITU-T H.273."""


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
        odd = width % 2 or height % 2
        if odd and encoder != "libx264":
            width, height = width + width % 2, height + height % 2
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if odd and encoder == "libx264" else "yuv420p"
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
    av = import_av(path)
    with atomic_write(path, binary=True) as file, av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = MARK
        writer = VideoWriter(av, container, clip)
        yield writer
        writer.finish()
