"""Files that are not readable images: the error says what they are."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.decode.signatures import UNREAD_SUFFIXES, describe
from fcos_cli.data.images import IMAGE_SUFFIXES, image_size, open_image
from fcos_cli.errors import DataError
from fcos_cli.predict.sources.video import VIDEO_SUFFIXES

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


def array_file() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 2)))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (LFS, "Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>404", "web page", "download"),
        (b"\xef\xbb\xbf\r\n<!-- x -->\n<HTML lang='en'>", "web page", "download"),
        (b'{"error": "not found"}', "JSON", "download"),
        (b"404: Not Found", "text", "download"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML", "download"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG", "convert"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC", "JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40), "HEIC", "JPEG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "raw file", "develop"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41" + bytes(40), "video", ".mp4"),
        (b"\xff\x0a\xfa\x1f" + bytes(40), "JPEG XL", "convert"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL", "convert"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(40), "raw file", "develop"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "raw file", "develop"),
        (b"8BPS\0\1" + bytes(40), "Photoshop", "convert"),
        (bytes(128) + b"DICM" + bytes(40), "DICOM", "convert"),
        (array_file(), "numpy array", "fromarray"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF", "images"),
        (b"PK\x03\x04" + bytes(40), "archive", "unpack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_error_says_what_the_file_is(content, what, remedy, tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    for attempt in (open_image, image_size):
        with pytest.raises(DataError) as caught:
            attempt(file)
        assert what in caught.value.what
        assert remedy in str(caught.value.remedy)
        assert caught.value.where == str(file)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_a_damaged_image_is_still_called_damaged(kind, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, kind)
    file = tmp_path / "x"
    for length in (20, len(stream.getvalue()) // 2):
        file.write_bytes(stream.getvalue()[:length])
        with pytest.raises(DataError, match="damaged"):
            open_image(file)


@pytest.mark.parametrize("head", [b"", b"\0" * 512, bytes(range(128, 256)), b"P2 2 2 255 1 2 3 4", b"P5 1 1 255\n0"])
def test_nothing_is_said_about_other_files(head) -> None:
    assert describe(head) is None


def test_text_images_are_read() -> None:
    assert open_image(b"P2 2 1 255 10 200")[0, :, 0].tolist() == [10, 200]


def test_suffixes_have_one_meaning() -> None:
    assert not UNREAD_SUFFIXES.keys() & (IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.jpg"
    os.mkfifo(pipe)
    for attempt in (open_image, image_size):
        with pytest.raises(DataError, match="pipe") as caught:
            attempt(pipe)
        assert "fcos predict -" in str(caught.value.remedy)
