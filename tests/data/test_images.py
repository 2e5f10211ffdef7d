"""Opening images: every mode becomes upright RGB, every unusable file a clear error."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fcos_cli.data.images import IMAGE_SUFFIXES, image_size, open_image
from fcos_cli.errors import DataError


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_a_color_image_is_height_width_rgb() -> None:
    pixels = open_image(encode(Image.new("RGB", (3, 2), (10, 20, 30))))
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("L", 77, "PNG", (77, 77, 77)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("LA", (0, 0), "PNG", (255, 255, 255)),
        ("LA", (40, 255), "PNG", (40, 40, 40)),
        ("RGBA", (9, 9, 9, 0), "PNG", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), "PNG", (127, 127, 127)),
        ("I;16", 65535, "PNG", (255, 255, 255)),
        ("I;16", 257 * 100, "PNG", (100, 100, 100)),
        ("I;16", 257 * 100, "TIFF", (100, 100, 100)),
        ("I;16B", 257 * 100, "TIFF", (100, 100, 100)),
        ("I", 200, "TIFF", (200, 200, 200)),
        ("I", 257 * 100, "TIFF", (100, 100, 100)),
        ("F", 1.0, "TIFF", (255, 255, 255)),
        ("F", 128.0, "TIFF", (128, 128, 128)),
        ("CMYK", (0, 0, 0, 0), "TIFF", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (255, 0, 0)),
        ("YCbCr", (128, 128, 128), "TIFF", (128, 128, 128)),
        ("RGB", (255, 0, 0), "BMP", (255, 0, 0)),
        ("RGB", (255, 0, 0), "GIF", (255, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, kind, expected) -> None:
    pixels = open_image(encode(Image.new(mode, (8, 8), colour), kind))
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert open_image(encode(image, transparency=0))[0].tolist() == [[255, 255, 255], [0, 0, 255]]
    assert open_image(encode(image, transparency=b"\x00\xff"))[0].tolist() == [[255, 255, 255], [0, 0, 255]]
    assert open_image(encode(image))[0].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).reshape(1, -1).astype(np.uint16)
    pixels = open_image(encode(Image.fromarray(ramp)))
    assert pixels[0, :, 0].tolist() == list(range(256))


def test_a_dark_sixteen_bit_pgm_stays_dark() -> None:
    assert open_image(b"P5 1 1 65535\n" + (200).to_bytes(2, "big")).max() == 1


def test_a_float_map_of_zero_to_one_is_not_black() -> None:
    assert open_image(b"Pf\n2 1\n-1.0\n" + np.array([0.0, 1.0], "<f4").tobytes())[0, :, 0].tolist() == [0, 255]


def test_floats_of_any_range_are_stretched_and_nan_is_black() -> None:
    values = np.array([[-5.0, 5.0, np.nan, np.inf]], np.float32)
    assert open_image(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str, tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # a white top left corner
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned"
    options = {"lossless": True} if kind == "WEBP" else {}
    file.write_bytes(encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif.tobytes(), **options))
    pixels = open_image(file)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() < 40
    assert image_size(file) == (32, 16)


def test_a_damaged_exif_block_does_not_cost_the_image() -> None:
    data = encode(Image.new("RGB", (4, 2)), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert open_image(data).shape == (2, 4, 3)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(data)[0, 0].tolist() == [255, 0, 0]


def test_streams_are_read_from_their_position_and_left_open() -> None:
    stream = io.BytesIO(encode(Image.new("RGB", (5, 4))))
    assert open_image(stream).shape == (4, 5, 3)
    assert not stream.closed


def test_color_profiles_are_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert open_image(encode(Image.new("RGB", (2, 2), (1, 2, 3)), icc_profile=profile))[0, 0].tolist() == [1, 2, 3]


def noisy(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return encode(Image.fromarray(pixels), kind)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_an_error_that_names_it(kind: str, share: float, tmp_path: Path) -> None:
    data = noisy(kind)
    file = tmp_path / f"cut.{kind.lower()}"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError) as caught:
        open_image(file)
    assert str(file) in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("data", [b"", b"a", b"hello, I am a text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_other_data_is_an_error(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(data)
    for attempt in (open_image, image_size):
        with pytest.raises(DataError) as caught:
            attempt(file)
        assert caught.value.where == str(file)
        assert caught.value.remedy


def test_missing_files_and_folders_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="folder"):
        open_image(tmp_path)
    (tmp_path / "a.png").symlink_to("annexed")
    with pytest.raises(DataError, match="link to annexed, which does not exist"):
        open_image(tmp_path / "a.png")


def test_too_many_pixels_are_refused_before_decoding() -> None:
    bomb = encode(Image.new("1", (20_000, 10_000)))
    assert len(bomb) < 100_000
    with pytest.raises(DataError, match=r"20000 x 10000.*178,956,970"):
        open_image(bomb)


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_a_lack_of_memory_is_not_called_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DataError, match="not enough memory for the image, 10 x 10 pixels") as caught:
        open_image(encode(Image.new("L", (10, 10))))
    assert "download" not in str(caught.value.remedy)


def test_the_pixel_limit_is_inclusive_and_independent_of_pillow() -> None:
    data = encode(Image.new("L", (10, 10)))
    assert open_image(data, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(DataError, match="limit of 99"):
        open_image(data, max_pixels=99)


def test_the_size_of_a_huge_image_is_read_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    file.write_bytes(encode(Image.new("1", (20_000, 10_000))))
    assert image_size(file) == (20_000, 10_000)


def test_many_threads_open_the_same_image() -> None:
    data = noisy("JPEG")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(open_image, [data] * 16))
    assert all((image == images[0]).all() for image in images)


def test_suffixes_are_lower_case_with_their_dot() -> None:
    assert {".jpg", ".png", ".webp"} <= IMAGE_SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
