import io

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.decode.frames import FRAMES, PAGES
from fcos_cli.data.images import read_image


def several(kind: str, count: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), (80 * n, 0, 0)) for n in range(count)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "note"), [("GIF", FRAMES), ("WEBP", FRAMES), ("PNG", FRAMES), ("AVIF", FRAMES), ("TIFF", PAGES)]
)
def test_more_frames_or_pages_are_noted_and_the_first_is_read(kind, note) -> None:
    Image.init()
    if kind not in Image.SAVE_ALL:
        pytest.skip("Pillow before 11.3 has no AVIF")
    for count, expected in ((1, None), (3, note)):
        image = read_image(several(kind, count))
        assert image.note == expected
        assert np.abs(image.pixels.astype(int) - (0, 0, 0)).max() < 10


def test_the_preview_in_a_photo_is_not_noted() -> None:
    assert read_image(several("MPO", 2)).note is None


def test_damage_after_the_first_frame_is_not_an_error() -> None:
    data = several("GIF", 3)
    first = len(several("GIF", 1))
    for length in range(first, len(data), 7):
        assert read_image(data[:length]).pixels.shape == (8, 8, 3)
