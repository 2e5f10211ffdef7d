"""Files with several pages or frames, of which the first one is used."""

from __future__ import annotations

from contextlib import suppress
from typing import IO

from PIL import ImageFile

from fcos_cli.data.decode.tiff import has_more_pages

PAGES = "only the first page of this file is used; save the others as separate files"
FRAMES = "only the first frame of this animation is used; convert it to a video to use all"


def unused_frames(image: ImageFile.ImageFile, stream: IO[bytes]) -> str | None:
    """Return PAGES or FRAMES if a decoded image is the first of several, else None.

    stream: the file that it was decoded from. The second picture in a JPEG file (MPO) is a preview, a depth map or the
    other eye's view, and not mentioned. A file that is damaged after its first image counts as having no other.
    """
    with suppress(Exception):  # decoders raise arbitrary exceptions on damaged input
        if image.format == "TIFF":
            return PAGES if has_more_pages(stream) else None
        if image.format != "MPO" and getattr(image, "is_animated", False):
            return FRAMES
    return None
