from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.errors import FcosError, MissingExtra
from fcos_cli.predict import encode
from fcos_cli.predict.encode import open_video
from fcos_cli.predict.sources.frames import Clip
from tests.predict.clips import read_clip

pytest.importorskip("av")


@pytest.mark.parametrize("size", [(48, 32), (47, 33), (2, 2), (640, 360)])
def test_written_video_has_the_given_size_rate_times_and_colours(tmp_path, size):
    colours = [(200, 30, 40), (20, 180, 60), (30, 40, 220)]
    with open_video(tmp_path / "new" / "o.mp4", Clip(Path("c"), Fraction(30000, 1001))) as video:
        for n, colour in enumerate(colours):
            video.write(np.full((*size[::-1], 3), colour, np.uint8), Fraction(1001 * n, 30000))
    images, times, metadata = read_clip(tmp_path / "new" / "o.mp4")
    assert [image.shape for image in images] == [(*size[::-1], 3)] * 3
    assert times == pytest.approx([0, 0.0333667, 0.0667333], abs=1e-5)
    assert metadata["matrix"] == 1
    assert float(metadata["rate"]) == pytest.approx(29.97, rel=1e-3)
    for image, colour in zip(images, colours, strict=True):
        np.testing.assert_allclose(image.mean((0, 1)), colour, atol=6)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["o.mp4"]


def test_written_video_keeps_the_shape_of_the_pixels(tmp_path):
    wide = Fraction(16, 11)
    with open_video(tmp_path / "o.mp4", Clip(Path("c"), Fraction(25), pixel_aspect=wide)) as video:
        video.write(np.zeros((32, 48, 3), np.uint8), Fraction(0))
    images, _, metadata = read_clip(tmp_path / "o.mp4")
    assert (images[0].shape, metadata["pixel_aspect"]) == ((32, 48, 3), wide)


def test_repeated_times_are_increased(tmp_path):
    with open_video(tmp_path / "o.mp4", Clip(Path("c"), Fraction(25))) as video:
        for time in (0, 0, 0, 1):
            video.write(np.zeros((32, 32, 3), np.uint8), Fraction(time))
    _, times, _ = read_clip(tmp_path / "o.mp4")
    assert len(times) == len(set(times)) == 4
    assert times[3] == pytest.approx(1)


def test_frame_of_another_size_is_scaled(tmp_path):
    with open_video(tmp_path / "o.mp4", Clip(Path("c"), Fraction(25))) as video:
        video.write(np.zeros((32, 48, 3), np.uint8), Fraction(0))
        video.write(np.zeros((64, 64, 3), np.uint8), Fraction(1, 25))
    images, _, _ = read_clip(tmp_path / "o.mp4")
    assert [image.shape for image in images] == [(32, 48, 3)] * 2


def test_failed_video_keeps_the_existing_file(tmp_path):
    (tmp_path / "o.mp4").write_bytes(b"before")

    def fail() -> None:
        with open_video(tmp_path / "o.mp4", Clip(Path("c"), Fraction(25))) as video:
            video.write(np.zeros((32, 32, 3), np.uint8), Fraction(0))
            raise FcosError("stop")

    with pytest.raises(FcosError, match="stop"):
        fail()
    assert (tmp_path / "o.mp4").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_second_encoder_gets_even_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "_ENCODERS", ("libx265",))  # in place of OpenH264, which this PyAV may not have
    with open_video(tmp_path / "o.mp4", Clip(Path("c"), Fraction(25))) as video:
        for n in range(3):
            video.write(np.full((133, 147, 3), (200, 30, 40), np.uint8), Fraction(n, 25))
    images, _, _ = read_clip(tmp_path / "o.mp4")
    assert [image.shape for image in images] == [(134, 148, 3)] * 3


def test_without_an_encoder_the_error_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr("av.Codec", unknown)
    with (
        pytest.raises(FcosError, match=r"none of the encoders libx264, libopenh264\n"),
        open_video(tmp_path / "o.mp4", Clip(Path("c"), Fraction(25))) as video,
    ):
        video.write(np.zeros((32, 32, 3), np.uint8), Fraction(0))
    assert list(tmp_path.iterdir()) == []


def unknown(name: str, _mode: str) -> None:
    if name != "mpeg4":  # which is in every build, and refuses these times
        raise ValueError(name)


def test_missing_pyav_is_reported_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra), open_video(tmp_path / "o.mp4", Clip(Path("c.mp4"), Fraction(25))):
        pass
    assert list(tmp_path.iterdir()) == []
