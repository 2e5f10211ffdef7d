import io

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError


def encoded(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_colours_of_eight_bits_and_deep_gray_are_read(options) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(open_image(encoded(colours, **options)), colours)
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    np.testing.assert_array_equal(open_image(encoded(gray, **options))[..., 0], gray // 257)


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_deep_colours_are_refused(options, bits) -> None:
    data = bytearray(encoded(np.full((16, 16, 3), 255, np.uint8), **options))
    first = data.index(b"\xff\x4f\xff\x51") + 42  # ISO/IEC 15444-1, A.5.1: bits less one of each band, every 3 bytes
    data[first : first + 9 : 3] = bytes([bits - 1] * 3)
    with pytest.raises(DataError, match=f"3 bands of {bits} bits") as caught:
        open_image(bytes(data))
    assert caught.value.where == "image in memory"
