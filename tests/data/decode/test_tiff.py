"""TIFF files of every usual layout are read correctly or refused; the pixels are known by construction."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.data.decode.tiff import has_more_pages
from fcos_cli.data.images import image_size, open_image
from fcos_cli.errors import DataError
from tests.data.decode.tiffs import CMYK, GRAY, RGB, WHITE_IS_ZERO, Page, tiff

LAYOUTS = [{}, {"rows": 5}, {"tile": (16, 32)}]
EXTRA, NODATA = 338, 42113


def planes(bands: int, dtype: type = np.uint8) -> np.ndarray:
    """Different values in every band, [bands, 19, 37], over the whole range of an unsigned type."""
    ramp = np.arange(bands * 19 * 37).reshape(bands, 19, 37) * 7919 % 256
    return (ramp * (np.iinfo(dtype).max // 255)).astype(dtype)


def rgb_of(bands: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of the first three bands, or of gray."""
    eight = (bands.astype(np.uint64) // (np.iinfo(bands.dtype).max // 255)).astype(np.uint8)
    return np.moveaxis(eight[:3] if len(bands) > 1 else np.repeat(eight, 3, axis=0), 0, -1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_is_read_from_every_layout(layout, big_endian, deflate, planar, dtype) -> None:
    bands = planes(3, dtype)
    data = tiff(Page(bands, RGB, planar=planar, deflate=deflate, **layout), big_endian=big_endian)
    np.testing.assert_array_equal(open_image(data), rgb_of(bands))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_is_read_from_every_layout(layout, big_endian, planar, dtype) -> None:
    bands = planes(4, dtype)
    data = tiff(Page(bands, CMYK, planar=planar, **layout), big_endian=big_endian)
    ink = np.moveaxis((bands // (np.iinfo(dtype).max // 255)).astype(np.uint8), 0, -1)
    expected = np.asarray(Image.frombytes("CMYK", (37, 19), ink.tobytes()).convert("RGB"))
    np.testing.assert_array_equal(open_image(data), expected)


@pytest.mark.parametrize("planar", [False, True])
def test_transparency_of_sixteen_bits_becomes_white(planar) -> None:
    bands = planes(4, np.uint16)
    bands[3] = np.where(np.arange(37) < 20, 0, 65535)
    pixels = open_image(tiff(Page(bands, RGB, planar=planar, tags={EXTRA: 2})))
    assert (pixels[:, :20] == 255).all()
    np.testing.assert_array_equal(pixels[:, 20:], rgb_of(bands)[:, 20:])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("planar", [False, True])  # says nothing for one band, and some programs write it
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_is_read_from_every_layout(layout, big_endian, deflate, planar, dtype) -> None:
    bands = planes(1, dtype)
    data = tiff(Page(bands, GRAY, planar=planar, deflate=deflate, **layout), big_endian=big_endian)
    np.testing.assert_array_equal(open_image(data), rgb_of(bands))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_inverted(deflate, dtype) -> None:
    bands = planes(1, dtype)
    pixels = open_image(tiff(Page(bands, WHITE_IS_ZERO, deflate=deflate)))
    np.testing.assert_array_equal(pixels, 255 - rgb_of(bands))


def test_floats_with_white_is_zero_are_inverted() -> None:
    values = np.array([[[0.0, 0.2, 1.0, np.nan]]], np.float32)
    assert open_image(tiff(Page(values, WHITE_IS_ZERO)))[0, :, 0].tolist() == [255, 204, 0, 0]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.float32, [0.0, 0.2, 1.0], [0, 51, 255]),
        (np.int16, [-100, 0, 155], [0, 100, 255]),
        (np.int32, [-100_000, 0, 155_000], [0, 100, 255]),
        (np.int8, [-100, 0, 27], [0, 201, 255]),
        (np.int8, [0, 1, 127], [0, 1, 127]),
    ],
)
def test_signed_numbers_and_floats_are_read_in_both_byte_orders(big_endian, deflate, dtype, values, expected) -> None:
    data = tiff(Page(np.array([[values]], dtype), deflate=deflate), big_endian=big_endian)
    assert open_image(data)[0, :, 0].tolist() == expected


def test_large_unsigned_integers_do_not_become_negative() -> None:
    values = np.array([[[0, 2**31, 2**32 - 1]]], np.uint32)
    assert open_image(tiff(Page(values)))[0, :, 0].tolist() == [0, 128, 255]


def test_twelve_bit_gray_is_scaled() -> None:
    page = Page(np.array([[[0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00]]], np.uint8), tags={258: 12})  # 0, 4095, 2048, 0
    data = bytearray(tiff(page))
    data[data.index(struct.pack("<HHLL", 256, 4, 1, 6)) + 8] = 4  # four pixels in six bytes
    assert open_image(bytes(data))[0, :, 0].tolist() == [0, 255, 128, 0]


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_usual_compressions_are_read(compression) -> None:
    bands = planes(3)
    stream = io.BytesIO()
    Image.fromarray(rgb_of(bands)).save(stream, "TIFF", compression=compression)
    np.testing.assert_array_equal(open_image(stream.getvalue()), rgb_of(bands))


# ---------------------------------------------------------------- refused


def refusal(data: bytes, folder: Path) -> DataError:
    """The error, which must name the file and a remedy, and must not speak of damage."""
    file = folder / "x.tif"
    file.write_bytes(data)
    with pytest.raises(DataError) as caught:
        open_image(file)
    assert caught.value.where == str(file)
    assert caught.value.remedy
    assert "damaged" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("page", "what"),
    [
        (Page(np.zeros((5, 4, 4), np.uint16), RGB, tags={EXTRA: (0, 0)}), "5 bands of 16-bit unsigned integers (RGB)"),
        (Page(np.zeros((3, 4, 4), np.float32), RGB), "3 bands of 32-bit floats (RGB)"),
        (Page(np.zeros((1, 4, 4), np.float64)), "1 band of 64-bit floats (gray)"),
        (Page(np.zeros((9, 4, 4), np.uint8)), "9 bands of 8-bit unsigned integers (gray)"),
        (Page(np.zeros((2, 4, 4), np.uint8), planar=True, tags={EXTRA: 2}, deflate=True), "2 bands"),
        (Page(np.zeros((5, 4, 4), np.uint16), planar=True, tags={EXTRA: (0,) * 4}), "each band on its own plane"),
        (Page(np.zeros((5, 4, 4), np.uint8), planar=True, tags={EXTRA: (0,) * 4}, deflate=True), "5 bands of 8-bit"),
        (Page(np.zeros((3, 4, 4), np.uint8), RGB, tags={259: 34887}), "compressed as LERC"),
        (Page(np.zeros((3, 4, 4), np.uint8), RGB, tags={259: 12345}), "compressed as method 12345"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_pixels_are_described(page, what, tmp_path, capfd) -> None:
    assert what in refusal(tiff(page), tmp_path).what
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("tags", [{50706: (1, 4)}, {254: 1, 330: 0}])
def test_the_preview_in_a_raw_file_is_not_taken_for_the_image(tags, tmp_path) -> None:
    assert "raw file" in refusal(tiff(Page(planes(3), RGB, tags=tags)), tmp_path).what


def test_a_byte_order_that_pillow_does_not_know_is_named(tmp_path) -> None:
    assert "big-endian BigTIFF" in refusal(b"MM\0\x2b\0\x08\0\0" + struct.pack(">QQ", 16, 0), tmp_path).what


def test_a_compression_that_pillow_may_lack_is_named(tmp_path) -> None:
    page = Page(planes(3), RGB, tags={259: 50001})
    with pytest.raises(DataError, match="cannot read: webp"):
        open_image(tiff(page))


def test_a_damaged_directory_is_not_described(tmp_path) -> None:
    file = tmp_path / "x.tif"
    file.write_bytes(tiff(Page(planes(3), RGB))[:40])
    with pytest.raises(DataError, match="not a readable image") as caught:
        open_image(file)
    assert "bands" not in str(caught.value)


def test_truncated_planes_are_an_error() -> None:
    data = tiff(Page(planes(3, np.uint16), RGB, planar=True))
    with pytest.raises(DataError, match="truncated or damaged"):
        open_image(data[: len(data) * 2 // 3])


# ---------------------------------------------------------------- pixels without a value


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32])
def test_pixels_without_a_value_do_not_count_for_the_range(dtype) -> None:
    values = np.array([[[-9999, 200, 100, 55, -9999]]], dtype)
    pixels = open_image(tiff(Page(values, tags={NODATA: "-9999"})))[0, :, 0]
    assert pixels.tolist() == [0, 200, 100, 55, 0]


def test_the_lowest_float_is_no_value_even_without_a_tag() -> None:
    values = np.array([[[-np.finfo(np.float32).max, 10.0, 20.0, np.nan]]], np.float32)
    for tags in ({}, {NODATA: "-3.40282346638529e+38"}, {NODATA: "nan"}, {NODATA: "none"}):
        assert open_image(tiff(Page(values, tags=tags)))[0, :, 0].tolist() == [0, 10, 20, 0]


def test_no_value_in_an_image_of_a_fixed_range_changes_nothing() -> None:
    bands = planes(1, np.uint16)
    np.testing.assert_array_equal(open_image(tiff(Page(bands, tags={NODATA: "0"}))), rgb_of(bands))


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("kinds", "expected"), [([], False), ([0], True), ([1], False), ([4, 5, 1], False), ([1, 0], True), ([2], True)]
)
def test_thumbnails_and_masks_are_no_pages(kinds, expected, big_endian) -> None:
    pages = [Page(planes(3), RGB), *(Page(planes(1), tags={254: kind}) for kind in kinds)]
    assert has_more_pages(io.BytesIO(tiff(*pages, big_endian=big_endian))) is expected


def test_pages_that_form_a_circle_end() -> None:
    data = bytearray(tiff(Page(planes(1)), Page(planes(1), tags={254: 1})))
    (second,) = struct.unpack_from("<L", data, 10 + 12 * struct.unpack_from("<H", data, 8)[0])
    link = second + 2 + 12 * struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<L", data, link, second)
    assert not has_more_pages(io.BytesIO(bytes(data)))


def test_a_file_with_pages_gives_the_first(tmp_path) -> None:
    file = tmp_path / "x.tif"
    file.write_bytes(tiff(Page(planes(3), RGB), Page(planes(1)[:, :5])))
    np.testing.assert_array_equal(open_image(file), rgb_of(planes(3)))
    assert image_size(file) == (37, 19)
