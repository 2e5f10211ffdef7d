"""What decoding finds: damaged files, wrong sizes, and the same scene in both splits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fcos_cli.data import decoded as module
from fcos_cli.data.decoded import ALIKE, Decoded, correlated, decode_all, difference_hash, examine_decoded, nearest
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.model.classes import ClassTable
from tests.evaluate.samples import sample

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def photo(name: str = "cat") -> Image.Image:
    return Image.open(PHOTOS / f"{name}.jpg").convert("RGB")


def compressed(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def distance(one: Image.Image, other: Image.Image) -> int:
    return int((difference_hash(np.asarray(one)) != difference_hash(np.asarray(other))).sum())


def split(name: str, *files: Path, size: tuple[int, int] | None = None) -> Dataset:
    samples = []
    for file in files:
        try:
            with Image.open(file) as image:
                true = image.size
        except OSError:
            true = (8, 8)
        samples.append(sample([[0, 0, 4, 4]], size=size or true, image=file))
    return Dataset(samples, ClassTable(("a",), (1,)), "coco", name, Path("x.json"), "")


def found(train: Dataset, val: Dataset) -> dict[tuple[str, str], Finding]:
    files = [sample.image for dataset in (train, val) for sample in dataset.samples]
    findings = examine_decoded(train, val, decode_all(files))
    return {(which, finding.id): finding for which, finding in findings}


# --- the hash ---------------------------------------------------------------------------------------------------------


def test_the_hash_says_where_the_image_gets_brighter():
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[:, 45:] = 255  # one step to the right in every row, none down
    bits = difference_hash(pixels)
    across, down = bits[:64].reshape(8, 8), bits[64:].reshape(8, 8)
    assert across.sum(axis=1).tolist() == [2] * 8  # the middle one of nine cells lies on the step
    assert not down.any()


EDITS = {
    "compressed": lambda image: compressed(image, 20),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "gray": lambda image: compressed(image.convert("L"), 80),
    "moved": lambda image: image.crop((2, 2, image.width, image.height)),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", ["cat", "astronaut"])
def test_copies_look_alike(name, edit):
    image, copy = photo(name), EDITS[edit](photo(name))
    assert distance(image, copy) <= ALIKE
    assert correlated(*(Decoded(thumbnail=np.asarray(x.resize((16, 16), Image.Resampling.BOX))) for x in (image, copy)))


def test_other_images_do_not():
    assert distance(photo("cat"), photo("astronaut")) > 3 * ALIKE
    assert distance(photo("cat"), photo("cat").rotate(180)) > 3 * ALIKE


def test_the_nearest_of_many_is_found_in_every_block(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    rng = np.random.default_rng(0)
    others = rng.random((40, 128)) < 0.5
    hashes = rng.random((20, 128)) < 0.5
    hashes[3], hashes[18] = others[5], others[39]
    hashes[18, :ALIKE] ^= True
    hashes[6] = others[7]
    hashes[6, : ALIKE + 1] ^= True  # one bit too many
    assert nearest(hashes, others) == [(3, 5), (18, 39)]
    assert nearest(hashes, others[:0]) == nearest(hashes[:0], others) == []


def test_images_of_plain_background_are_not_alike(tmp_path):
    """The same ramp in other colours has almost the same hash, and a plain image has none to speak of."""
    ramp = np.linspace(60, 240, 64).astype(np.uint8)
    for name, channel in (("a", 0), ("b", 2)):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[..., 1] = ramp
        pixels[..., channel] = 200
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / f"{name}_plain.png")
    seen = decode_all(sorted(tmp_path.glob("*.png")))
    a, a_plain, b, b_plain = seen.values()
    assert (a.bits != b.bits).sum() <= ALIKE
    assert not correlated(a, b)
    assert correlated(a, a)
    assert not correlated(a_plain, b_plain)


def test_a_gray_image_is_compared_by_brightness():
    thumbnails = [np.asarray(photo(name).resize((16, 16), Image.Resampling.BOX)) for name in ("cat", "astronaut")]
    blue = np.zeros((16, 16, 3), np.uint8)
    blue[..., 2] = thumbnails[0].mean(axis=2)  # in colours of its own, which no gray image has
    gray, other = (np.asarray(Image.fromarray(t).convert("L").convert("RGB")) for t in (blue, thumbnails[1]))
    assert correlated(Decoded(thumbnail=blue), Decoded(thumbnail=gray))
    assert not correlated(Decoded(thumbnail=blue), Decoded(thumbnail=other))
    assert not correlated(Decoded(thumbnail=blue), Decoded(thumbnail=np.ascontiguousarray(blue[..., ::-1])))


# --- findings ---------------------------------------------------------------------------------------------------------


def test_a_copy_in_the_other_split_is_found_and_the_same_file_is_left_to_leakage(tmp_path):
    photo().save(tmp_path / "a.jpg", quality=95)
    compressed(photo(), 40).save(tmp_path / "b.png")
    photo("astronaut").save(tmp_path / "c.jpg")
    (tmp_path / "d.jpg").write_bytes((tmp_path / "c.jpg").read_bytes())
    train = split("train", tmp_path / "a.jpg", tmp_path / "c.jpg")
    listed = found(train, split("val", tmp_path / "b.png", tmp_path / "d.jpg", tmp_path / "c.jpg"))
    assert listed.keys() == {("train", "near-duplicates")}
    finding = listed["train", "near-duplicates"]
    assert (finding.place, finding.severity) == ("a.jpg ≈ b.png", "warning")
    assert finding.message.endswith(": 1")
    assert found(train, split("val", tmp_path / "d.jpg")) == {}


def test_damaged_files_are_named_with_what_is_wrong(tmp_path):
    photo().save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:9000])
    (tmp_path / "page.jpg").write_text("<!doctype html><html>not found</html>")
    listed = found(split("train", tmp_path / "a.jpg", tmp_path / "cut.jpg"), split("val", tmp_path / "page.jpg"))
    assert listed.keys() == {("train", "damaged-image"), ("val", "damaged-image")}
    cut, page = listed["train", "damaged-image"], listed["val", "damaged-image"]
    assert (cut.severity, page.severity) == ("error", "error")
    assert cut.message == "images that cannot be decoded: 1 of 2"
    assert cut.place.startswith("cut.jpg (the image is truncated or damaged")
    assert page.place.startswith("page.jpg (")
    assert "remove them" in cut.remedy


def test_sizes_are_compared_for_all_images_after_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = photo().resize((60, 40))
    upright.save(tmp_path / "r.jpg", exif=exif)
    assert found(split("train", tmp_path / "r.jpg", size=(40, 60)), split("val")) == {}
    finding = found(split("train"), split("val", tmp_path / "r.jpg", size=(60, 40)))["val", "size-mismatch"]
    assert finding.place == "r.jpg (file 40x60, annotations 60x40)"
    assert "EXIF" in finding.remedy


def test_each_file_is_decoded_once_and_progress_reaches_the_total(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)
    files = [tmp_path / f"{n}.png" for n in range(5)]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    calls = []
    assert list(decode_all([*files, *files], on_progress=lambda *at: calls.append(at))) == files
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_images_of_few_bits_are_told_about(tmp_path):
    for number in range(3):
        pixels = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)  # 12 bits of 16
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    train = split("train", *sorted(tmp_path.glob("*.png")))
    assert found(train, split("val"))["train", "narrow-range"].place.startswith("0.png (17)")
