import numpy as np
import pytest

from fcos_cli.data.decode.gray import scale_gray


def test_sixteen_bits_are_scaled_exactly() -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(pixels / 257).astype(np.uint8)  # 257 is odd: no value lies halfway
    np.testing.assert_array_equal(scale_gray(pixels), expected)
    np.testing.assert_array_equal(scale_gray(pixels, white_is_zero=True), 255 - expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 0.5, 1.5], [0, 0, 2]),
        ([0.0, 257.0], [0, 1]),
        ([0.0, 65536.0], [0, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([7.0, np.inf, -np.inf], [7, 255, 0]),
        ([np.nan, np.nan], [0, 0]),
        ([np.inf], [255]),
    ],
)
def test_the_range_is_inferred_from_the_values(values, expected) -> None:
    assert scale_gray(np.array([values], np.float32))[0].tolist() == expected


def test_a_constant_image_of_negative_values_is_black() -> None:
    assert scale_gray(np.full((2, 2), -3.0, np.float32)).max() == 0


def test_a_known_white_is_used_for_integers() -> None:
    assert scale_gray(np.array([[0, 2048, 4095]], np.uint16), white=4095)[0].tolist() == [0, 128, 255]
    assert scale_gray(np.array([[0, 200]], np.int32), white=65535)[0].tolist() == [0, 1]


@pytest.mark.parametrize(("dtype", "nodata"), [(np.float32, -9999.9), (np.float32, 1e20), (np.int32, -32768)])
def test_pixels_without_a_value_are_black_also_if_white_is_zero(dtype, nodata) -> None:
    pixels = np.array([[nodata, 0, 100, 255]]).astype(dtype)
    assert scale_gray(pixels, nodata=nodata)[0].tolist() == [0, 0, 100, 255]
    assert scale_gray(pixels, nodata=nodata, white_is_zero=True)[0].tolist() == [0, 255, 155, 0]
