"""Small test videos written with PyAV. Each frame has its own shade of grey, so that tests can identify it.

A test that writes or reads one is skipped without PyAV.
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    import av

SIZE = (48, 32)


def shade(number: int) -> int:
    """Grey level of frame `number`."""
    return 40 + 8 * (number % 20)


def write_clip(
    path: Path,
    count: int = 10,
    *,
    rate: int = 25,
    times: list[Fraction] | None = None,
    size: tuple[int, int] = SIZE,
    sound: bool = False,
    cover: bool = False,
    pixel_aspect: Fraction | int = 1,
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
) -> Path:
    """Write `count` grey frames with a bright red square of 8 px in the top left corner.

    times: in seconds, one per frame, instead of a fixed rate. cover: also add a white picture, as music and films have.
    pixel_aspect: width of a pixel divided by its height. Every frame is a key frame.
    """
    av = pytest.importorskip("av")
    width, height = size
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 1
        stream.bit_rate = 4_000_000
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        stream.codec_context.time_base = Fraction(1, 1000 if times else rate)
        if cover:
            add_cover(container)
        beep = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for n in range(count):
            image = np.full((height, width, 3), shade(n), np.uint8)
            image[:8, :8] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(times[n] / frame.time_base) if times else n
            container.mux(stream.encode(frame))
        if beep is not None:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
            tone.sample_rate = 8000
            container.mux(beep.encode(tone))
            container.mux(beep.encode(None))
        container.mux(stream.encode(None))
    return path


def add_cover(container: av.container.OutputContainer) -> None:
    """Add a white picture of 64 x 64 as the cover."""
    picture = np.full((64, 64, 3), 255, np.uint8)
    if container.format.name == "matroska":
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG")
        container.add_attachment("cover.jpg", "image/jpeg", stream.getvalue())
        return
    av = pytest.importorskip("av")
    from av.stream import Disposition

    cover = container.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
    cover.disposition = Disposition.attached_pic
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts = 0
    container.mux([*cover.encode(frame), *cover.encode(None)])


def put_cover_first(path: Path) -> None:
    """Move the metadata of an MP4, which holds the cover, before its tracks: the cover becomes the first stream."""
    data = path.read_bytes()
    moov = _boxes(data)[b"moov"]
    inner = _boxes(moov, 8)
    order = sorted(inner, key=lambda kind: kind != b"udta")
    path.write_bytes(data.replace(moov, moov[:8] + b"".join(inner[kind] for kind in order)))


def _boxes(data: bytes, start: int = 0) -> dict[bytes, bytes]:
    """Kind → content of the boxes of an MP4 file (ISO/IEC 14496-12, 4.2), with their headers."""
    boxes = {}
    while start < len(data):
        (size,) = struct.unpack_from(">L", data, start)
        boxes[data[start + 4 : start + 8]] = data[start : start + size]
        start += size
    return boxes


def hold_upright(path: Path) -> None:
    """Set the rotation that a phone held upright writes into an MP4: 90 degrees clockwise."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2: the track header's matrix, 16.16 and 2.30 fixed point
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, SIZE[1] << 16, 0, 1 << 30)
    path.write_bytes(data)


def read_clip(path: Path) -> tuple[list[np.ndarray], list[float], dict[str, object]]:
    """Read BT.709 frames as uint8 [H, W, 3], their times in seconds, and the metadata of the file."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        metadata: dict[str, object] = {
            "rate": stream.average_rate,
            "sound": len(container.streams.audio),
            "codec": stream.codec.name,
            "pixel_aspect": stream.sample_aspect_ratio,
        }
        images = [frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray() for frame in frames]
        metadata["matrix"] = int(frames[0].colorspace)
        return images, [float(frame.time) for frame in frames], metadata
