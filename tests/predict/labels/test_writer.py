"""What is written is read back: the same boxes, classes and pictures in every format."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.images import image_size, open_image
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import FcosError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels import pictures
from fcos_cli.predict.labels.pictures import Pictures, stem_of
from fcos_cli.predict.outputs import LONGEST
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.sources.frames import Clip, Moment
from tests.predict.labels.made import FORMATS, detections, prediction, write

every_format = pytest.mark.parametrize("format", FORMATS)


def picture(file: Path, *, size: tuple[int, int] = (40, 30), shade: int = 90, **options: object) -> Path:
    """Noise of its own for each shade, so that no two pictures have the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **options)  # type: ignore[arg-type]
    return file


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def everything(folder: Path) -> Dataset:
    """Read a whole data set, in which no finding may say that something is wrong."""
    dataset = read_dataset(folder, split="all")
    assert [finding.id for finding in dataset.findings if finding.severity != "info"] == []
    return dataset


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labels_of(dataset: Dataset, stem: str) -> list[tuple[str, list[float]]]:
    (sample,) = [sample for sample in dataset.samples if sample.image.stem == stem]
    names = [dataset.classes.names[index] for index in sample.classes]
    return sorted(zip(names, sample.boxes.round(2).tolist(), strict=True))


@every_format
def test_a_data_set_is_read_back(format: str, tmp_path: Path) -> None:
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "in/b.png", shade=91)
    rows = ((1, 2, 11.5, 22.25, 0.9, 1), (0, 0, 40, 30, 0.5, 0), (3, 3, 9, 9, 0.49, 0))
    write(format, tmp_path / "out", prediction(a, *rows), prediction(b))
    dataset = everything(tmp_path / "out")
    assert dataset.format == format
    assert [(sample.image.name, sample.width, sample.height) for sample in dataset.samples] == [
        ("a.jpg", 40, 30),
        ("b.png", 40, 30),
    ]
    assert labels_of(dataset, "a") == [("cat", [1, 2, 11.5, 22.25]), ("dog", [0, 0, 40, 30])]
    assert labels_of(dataset, "b") == []
    assert dataset.samples[0].image.read_bytes() == a.read_bytes()
    assert len(read_dataset(tmp_path / "out", split="train")) == len(read_dataset(tmp_path / "out", split="val")) == 1


def test_class_tables_are_the_models(tmp_path: Path) -> None:
    found = prediction(picture(tmp_path / "a.jpg"), (1, 1, 9, 9, 0.9, 1))
    tables = {}
    for format in FORMATS:
        write(format, tmp_path / format, found)
        tables[format] = everything(tmp_path / format).classes.to_json()
    assert tables["coco"] == [{"id": 17, "name": "dog"}, {"id": 3, "name": "cat"}]
    assert tables["yolo"] == [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
    assert tables["voc"] == tables["labelme"] == [{"id": 1, "name": "cat"}]  # they know only classes with boxes


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), format=st.sampled_from(FORMATS))
def test_boxes_and_names_survive(data: st.DataObject, format: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    width, height = data.draw(st.tuples(st.integers(8, 70_000), st.integers(8, 70_000)))
    letters = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Zs", "Zl", "Zp"))
    names = data.draw(st.lists(st.text(letters, min_size=1, max_size=8), min_size=2, max_size=4, unique=True))
    share = st.floats(0, 1)
    rows = []
    for _ in range(data.draw(st.integers(1, 6))):
        x, y, w, h = data.draw(st.tuples(share, share, share, share))
        x1, y1 = x * (width - 1), y * (height - 1)
        rows.append((x1, y1, x1 + 0.5 + w * (width - x1 - 0.5), y1 + 0.5 + h * (height - y1 - 0.5), 0.9, 0.0))
    rows = [(*row[:5], float(number % len(names))) for number, row in enumerate(rows)]
    expected = np.unique(np.array(rows, np.float32), axis=0)
    folder = tmp_path_factory.mktemp("set")
    small = picture(folder / "in/a.png", size=(8, 8))
    made = Prediction(small, width, height, detections(*expected.tolist()), open_image(small))
    write(format, folder / "out", made, classes=ClassTable.from_names(names))
    labels = everything_unchecked(folder / "out", (width, height))
    table = labels.classes.names
    back = [(*box, table[index]) for box, index in zip(labels.samples[0].boxes, labels.samples[0].classes, strict=True)]
    wanted = [(*row[:4], names[int(row[5])]) for row in expected]
    assert len(back) == len(wanted)
    for found, box in zip(back, wanted, strict=True):
        assert found[4] == box[4]
        np.testing.assert_allclose(np.array(found[:4], float), np.array(box[:4], float), atol=0.011)


def everything_unchecked(folder: Path, size: tuple[int, int]) -> Dataset:
    """Read labels whose picture is said to be of another size than it is."""
    with patch("fcos_cli.data.formats.records.image_size", lambda _: size):
        return read_dataset(folder, split="all")


@every_format
def test_pictures_of_the_same_name_get_names_of_their_own(format: str, tmp_path: Path) -> None:
    names = ("a/1.jpg", "b/1.jpg", "b/1.png", "c/1.JPG", "c/%31.png")
    sources = [picture(tmp_path / name, shade=n) for n, name in enumerate(names)]
    found = [prediction(file, (n, n, n + 5, n + 5, 0.9, 0)) for n, file in enumerate(sources)]
    write(format, tmp_path / "out", *found)
    dataset = everything(tmp_path / "out")
    assert {s.image.name for s in dataset.samples} == {"1.jpg", "1-2.jpg", "1-3.png", "1-4.JPG", "%31-5.png"}
    for sample in dataset.samples:
        n = [file.read_bytes() for file in sources].index(sample.image.read_bytes())
        assert sample.boxes.round(2).tolist() == [[n, n, n + 5, n + 5]]


def test_many_pictures_of_one_name_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def record(stem: str) -> str:
        tried.append(stem)
        return stem

    monkeypatch.setattr(pictures, "plain", record)
    names = Pictures((), ["a-3"])
    assert [names.choose("A" if n else "a") for n in range(50)][:4] == ["a", "A-2", "A-4", "A-5"]
    assert len(tried) < 300


@every_format
@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "scan.tif", "moving.gif", "deep.bmp", "wrong.png"])
def test_boxes_fit_the_pixels_that_the_reader_sees(format: str, name: str, tmp_path: Path) -> None:
    options = {
        "turned.jpg": {"exif": exif(6)},
        "turned.png": {"exif": exif(6)},
        "scan.tif": {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]},
        "moving.gif": {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]},
        "wrong.png": {"format": "JPEG"},
    }.get(name, {})
    file = picture(tmp_path / "in" / name, **options)  # type: ignore[arg-type]
    found = prediction(file, (1, 2, 29, 30, 0.9, 0))
    before = file.read_bytes()
    write(format, tmp_path / "out", found)
    (sample,) = everything(tmp_path / "out").samples
    assert (sample.width, sample.height) == (found.width, found.height) == image_size(sample.image)
    np.testing.assert_array_equal(open_image(sample.image), found.image)
    assert sample.image.suffix == (".jpg" if name in ("turned.jpg", "wrong.png") else ".png")
    assert (sample.image.read_bytes() == before) == (name in ("turned.jpg", "wrong.png"))
    assert file.read_bytes() == before


@every_format
@pytest.mark.parametrize("stem", [".hidden", " a b ", "photo 1", "x.png", "back\\slash", "line\nbreak", "é" * 120])
def test_strange_file_names(format: str, stem: str, tmp_path: Path) -> None:
    file = picture(tmp_path / "in" / f"{stem}.jpg")
    write(format, tmp_path / "out", prediction(file, (1, 2, 9, 9, 0.9, 0)))
    (sample,) = everything(tmp_path / "out").samples
    assert sample.boxes.round(2).tolist() == [[1, 2, 9, 9]]


@every_format
def test_links(format: str, tmp_path: Path) -> None:
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "in/b.bmp")
    paths = write(format, tmp_path / "out", prediction(a, (1, 2, 9, 9, 0.9, 0)), prediction(b), link=True)
    assert paths[0] is not None
    assert paths[0].readlink() == a.resolve()
    assert [sample.image.is_symlink() for sample in everything(tmp_path / "out").samples] == [True, False]


@every_format
def test_where_links_cannot_be_made_nothing_is_added(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "in/b.jpg", shade=1)
    write(format, tmp_path / "there", prediction(a, (1, 2, 9, 9, 0.9, 0)))
    before = files(tmp_path / "there")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for name in ("new/out", "there"):
        with pytest.raises(UsageError, match="links cannot be made here") as caught:
            write(format, tmp_path / name, prediction(b, (1, 2, 9, 9, 0.9, 0)), link=True, merge=True)
        assert caught.value.remedy == "omit --link"
    assert not (tmp_path / "new").exists()
    assert files(tmp_path / "there") == before


@every_format
def test_merge_adds_pictures_and_leaves_the_others_alone(format: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "other/a.jpg", shade=1)
    write(format, out, prediction(a, (1, 2, 9, 9, 0.9, 0)))
    before = files(out)
    renamed = ClassTable(("bird", "dog"), (3, 4))
    skipped, added = write(
        format,
        out,
        prediction(a, (20, 20, 30, 30, 0.9, 0)),
        prediction(b, (3, 4, 8, 8, 0.9, 0), (5, 6, 9, 9, 0.8, 1)),
        classes=renamed,
        merge=True,
    )
    assert skipped is None
    assert added is not None
    assert added.stem == "a-2"
    dataset = everything(out)
    assert labels_of(dataset, "a") == [("dog", [1, 2, 9, 9])]
    assert labels_of(dataset, "a-2") == [("bird", [3, 4, 8, 8]), ("dog", [5, 6, 9, 9])]
    assert len({sample.image_id for sample in dataset.samples}) == 2
    tables = ("data.yaml", "train.json", "review.csv")
    assert all(files(out)[name] == content for name, content in before.items() if name not in tables)
    assert (out / "review.csv").read_text().count("\n") == 2  # the header and the new picture
    if format in ("yolo", "coco"):
        ids = {"yolo": [0, 1, 2], "coco": [17, 3, 18]}[format]
        assert dataset.classes == ClassTable(("dog", "cat", "bird"), tuple(ids))


@every_format
def test_merging_the_same_pictures_again_changes_nothing(format: str, tmp_path: Path) -> None:
    sources = [picture(tmp_path / f"in/{name}", shade=n) for n, name in enumerate(("a.jpg", "b.tif", "c.png"))]
    found = [prediction(file, (1, 2, 9, 9, 0.9, 0)) for file in sources]
    write(format, tmp_path / "out", *found)
    before = files(tmp_path / "out")
    assert write(format, tmp_path / "out", *found, merge=True) == [None, None, None]
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_pictures_of_a_killed_run_are_listed_by_the_next(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lists = tmp_path / "out", tmp_path / "out/ImageSets/Main"
    write(format, out, prediction(picture(tmp_path / "in/first.jpg", shade=1), (1, 2, 9, 9, 0.9, 0)))
    if format == "voc":
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("first\n")
    found = prediction(picture(tmp_path / "in/a.jpg"), (1, 2, 9, 9, 0.9, 0))
    with monkeypatch.context() as patch:
        patch.setattr(f"fcos_cli.predict.labels.{format}.{format.title()}Set.end", lambda _: None)
        write(format, out, found, merge=True)
    assert [sample.image.name for sample in everything(out).samples] == ["first.jpg"]
    (there,) = write(format, out, found, merge=True)
    assert there is not None
    assert there.name == "a.jpg"
    assert labels_of(everything(out), "a") == [("dog", [1, 2, 9, 9])]
    before = files(out)
    assert write(format, out, found, merge=True) == [None]
    assert files(out) == before


@pytest.mark.parametrize("format", ["coco", "voc", "labelme"])
def test_an_unlabelled_picture_is_labelled_where_it_lies_or_copied(format: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (first,) = write(format, out, prediction(picture(tmp_path / "in/first.jpg"), (1, 2, 9, 9, 0.9, 0)))
    assert first is not None
    beside, twin = picture(first.with_name("new.jpg"), shade=1), picture(first.with_name("first.png"), shade=2)
    elsewhere = picture(out / "pool/other.jpg", shade=3)
    found = [prediction(file, (1, 2, 9, 9, 0.9, 0)) for file in (beside, twin, elsewhere)]
    paths = [path for path in write(format, out, *found, merge=True) if path is not None]
    assert paths[0] == beside
    assert paths[1] == first.with_name("first-2.png")  # label files are found by the stem
    assert paths[2].parent == first.parent
    for path in (first, *paths):
        assert labels_of(everything(out), path.stem) == [("dog", [1, 2, 9, 9])]
    before = files(out)
    assert write(format, out, *found, merge=True) == [None] * 3
    assert files(out) == before


def test_xml_files_that_are_in_no_list_stay_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = [picture(tmp_path / f"in/{name}.jpg", shade=n) for n, name in enumerate("ab")]
    write("voc", out, *(prediction(file, (1, 2, 9, 9, 0.9, 0)) for file in sources))
    (out / "ImageSets/Main").mkdir(parents=True)
    (out / "ImageSets/Main/train.txt").write_text("a\n")
    before = files(out / "Annotations")
    write("voc", out, prediction(sources[1], (3, 4, 8, 8, 0.9, 1)), merge=True)
    assert files(out / "Annotations") == before
    assert (out / "ImageSets/Main/train.txt").read_text() == "a\nb\n"


def test_a_coco_file_without_images_takes_those_that_lie_there(tmp_path: Path) -> None:
    there = picture(tmp_path / "set/images/x.jpg")
    document = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}]}
    (tmp_path / "set/train.json").write_text(json.dumps(document))
    assert write("coco", tmp_path / "set", prediction(there, (1, 2, 9, 9, 0.9, 1)), merge=True) == [there]
    assert labels_of(everything(tmp_path / "set"), "x") == [("cat", [1, 2, 9, 9])]


def test_no_picture_is_added_twice_if_a_split_cannot_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    write("coco", out, prediction(picture(tmp_path / "in/a.jpg"), (1, 2, 9, 9, 0.9, 0)))
    (out / "val.json").write_text('{"images": [{"id": 1}], "annotations": [], "categories": []}')
    there = prediction(picture(out / "images/of_val.jpg", shade=1), (1, 2, 9, 9, 0.9, 0))
    assert write("coco", out, there, merge=True) == [None]
    message = capfd.readouterr().err
    assert f"{out / 'val.json'}" in message
    assert "pictures already in the data set are therefore not added" in message
    assert "of_val.jpg, perhaps with labels" in message


def test_merging_into_a_coco_file_keeps_what_it_holds(tmp_path: Path) -> None:
    old = picture(tmp_path / "set/train2017/x.jpg")
    document = {
        "info": {"year": 2026},
        "images": [{"id": 40, "file_name": old.name, "width": 40, "height": 30, "licence": 2}],
        "annotations": [{"id": 7, "image_id": 40, "category_id": 90, "bbox": [1, 1, 5, 5], "iscrowd": 1}],
        "categories": [{"id": 90, "name": "cat", "supercategory": "animal"}],
    }
    file = tmp_path / "set/annotations/instances_train2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(document))
    found = prediction(picture(tmp_path / "in/x.jpg", shade=1), (1, 2, 9, 9, 0.9, 0), (2, 2, 9, 9, 0.9, 1))
    write("coco", tmp_path / "set", found, merge=True)
    after = json.loads(file.read_text())
    assert after["info"] == {"year": 2026}
    for key in ("images", "annotations", "categories"):
        assert after[key][:1] == document[key]
    assert after["images"][1] == {"id": 41, "file_name": "x-2.jpg", "width": 40, "height": 30}
    assert after["categories"][1:] == [{"id": 91, "name": "dog"}]
    assert [(row["id"], row["image_id"], row["category_id"]) for row in after["annotations"][1:]] == [
        (8, 41, 91),
        (9, 41, 90),
    ]
    assert (tmp_path / "set/train2017/x-2.jpg").is_file()


def test_labels_stay_in_the_data_set_below_a_folder_called_images(tmp_path: Path) -> None:
    root = tmp_path / "images" / "cows"
    picture(root / "train/old.jpg", shade=3)
    (root / "train/old.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("names: [dog, cat]\ntrain: train\n")
    found = prediction(picture(tmp_path / "in/new.jpg", shade=1), (1, 2, 9, 9, 0.9, 1))
    write("yolo", root, found, merge=True)
    assert (root / "train/new.txt").is_file()
    assert not (tmp_path / "labels").exists()
    assert labels_of(read_dataset(root, split="all"), "new") == [("cat", [1, 2, 9, 9])]


def test_merging_into_a_data_yaml_and_a_voc_list_uses_the_train_split(tmp_path: Path) -> None:
    found = prediction(picture(tmp_path / "in/new.jpg", shade=1), (1, 2, 9, 9, 0.9, 1))
    for split in ("train", "val"):
        picture(tmp_path / f"yolo/{split}/images/{split}.jpg", shade=3)
        (tmp_path / f"yolo/{split}/labels").mkdir()
        (tmp_path / f"yolo/{split}/labels/{split}.txt").write_text("4 0.5 0.5 0.5 0.5\n")
    text = "nc: 1\nnames: {4: 'no'}\ntrain: ../train/images\nval: ../valid/images\n".replace("valid", "val")
    (tmp_path / "yolo/data.yaml").write_text(text)
    write("yolo", tmp_path / "yolo", found, merge=True)
    train = read_dataset(tmp_path / "yolo", split="train")
    assert train.classes == ClassTable(("no", "dog", "cat"), (4, 5, 6))
    assert labels_of(train, "new") == [("cat", [1, 2, 9, 9])]
    assert len(read_dataset(tmp_path / "yolo", split="val")) == 1

    write("voc", tmp_path / "voc", prediction(picture(tmp_path / "in/old 1.jpg"), (1, 2, 9, 9, 0.9, 1)))
    lists = tmp_path / "voc/ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("old 1.jpg")
    (lists / "val.txt").write_text("old 1.jpg")
    spaced = picture(tmp_path / "in/new 1.jpg", shade=2)
    write("voc", tmp_path / "voc", found, prediction(spaced), merge=True)
    assert (lists / "train.txt").read_text() == "old 1.jpg\nnew\nnew 1.jpg\n"
    assert len(read_dataset(tmp_path / "voc", split="train")) == 3
    assert len(read_dataset(tmp_path / "voc", split="val")) == 1


@every_format
def test_a_run_that_fails_leaves_a_data_set_of_what_was_done(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "in/b.bmp", shade=1)
    broken = prediction(b)
    monkeypatch.setattr("fcos_cli.predict.labels.pictures.kind_if_plain", lambda file: _fail_for(file, b))
    with pytest.raises(FcosError, match="the disk is full"):
        write(format, tmp_path / "out", prediction(a, (1, 2, 9, 9, 0.9, 0)), broken)
    assert [sample.image.name for sample in everything(tmp_path / "out").samples] == ["a.jpg"]
    assert (tmp_path / "out/review.csv").is_file()


@every_format
def test_ctrl_c_while_a_picture_reaches_the_disk_leaves_no_label_of_it(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "in/b.jpg", size=(60, 40))
    size, fsync = b.stat().st_size, os.fsync

    def interrupt(file: int) -> None:
        if os.fstat(file).st_size == size:
            raise KeyboardInterrupt
        fsync(file)

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(format, tmp_path / "out", *(prediction(file, (1, 2, 9, 9, 0.9, 0)) for file in (a, b)))
    assert [sample.image.name for sample in everything(tmp_path / "out").samples] == ["a.jpg"]
    assert [name for name in files(tmp_path / "out") if Path(name).stem == "b"] == []


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_a_picture_that_was_interrupted_at_its_last_step_is_in_no_list(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lists = tmp_path / "out", tmp_path / "out/ImageSets/Main"
    a, b, c = (picture(tmp_path / f"in/{name}.jpg", shade=n) for n, name in enumerate("abc"))
    write(format, out, prediction(a, (1, 2, 9, 9, 0.9, 0)))
    if format == "voc":
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\n")
    replace = Path.replace

    def interrupt(self: Path, target: Path) -> None:
        if target.name == "c.jpg":
            raise KeyboardInterrupt
        replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(format, out, *(prediction(file, (1, 2, 9, 9, 0.9, 0)) for file in (b, c)), merge=True)
    assert [sample.image.name for sample in everything(out).samples] == ["a.jpg", "b.jpg"]


def _fail_for(file: Path, bad: Path) -> str:
    if file == bad:
        raise FcosError("the disk is full")
    return "JPEG"


def test_one_label_is_no_labels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write("coco", tmp_path / "out", prediction(picture(tmp_path / "in/a.jpg"), (1, 2, 9, 9, 0.9, 0)))
    assert "out: 1 image with 1 label added" in capfd.readouterr().err


def test_frames_become_pictures_with_their_number(tmp_path: Path) -> None:
    clip = Clip(Path("camera:0"), Fraction(25), live=True)
    still = prediction(picture(tmp_path / "x.png"), (1, 2, 9, 9, 0.9, 0))
    frames = []
    for number in (0, 7):
        image = np.roll(np.asarray(still.image), number, axis=0)
        frames.append(replace(still, source=clip.source, image=image, moment=Moment(clip, number, Fraction(number))))
    paths = write("labelme", tmp_path / "out", *frames)
    assert [path.name for path in paths if path] == ["camera-0-000000.jpg", "camera-0-000007.jpg"]
    assert [sample.boxes.tolist() for sample in everything(tmp_path / "out").samples] == [[[1, 2, 9, 9]]] * 2


@pytest.mark.parametrize("length", [143, 144, 149, 200])
def test_frames_of_a_clip_with_a_long_name_keep_their_number(length: int, tmp_path: Path) -> None:
    clip = Clip(Path(f"{'é' * (length // 2)}{'x' * (length % 2)}.mp4"), Fraction(25))
    still = prediction(picture(tmp_path / "x.png"))
    frames = [replace(still, source=clip.source, moment=Moment(clip, n, Fraction(n))) for n in (7, 123_456_789)]
    stems = [stem_of(frame) for frame in frames]
    assert [stem.rpartition("-")[2] for stem in stems] == ["000007", "123456789"]
    assert all(len(stem.encode()) <= LONGEST for stem in stems)


@pytest.mark.parametrize("name", ["", " dog", "a\x1bb"])
def test_a_name_that_voc_cannot_hold_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    found = prediction(picture(tmp_path / "a.jpg"), (1, 2, 9, 9, 0.9, 0))
    with pytest.raises(UsageError, match="class name"):
        write("voc", tmp_path / "out", found, classes=ClassTable.from_names([name, "x"]))
    assert not (tmp_path / "out").exists()


def test_review_lists_the_pictures_of_the_set(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "in/a.jpg"), picture(tmp_path / "in/b.jpg", shade=1)
    write("yolo", tmp_path / "out", prediction(a, (1, 2, 9, 9, 0.9, 0)), prediction(b, (1, 2, 9, 9, 0.52, 1)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/review.csv").read_text())))
    assert [(row["picture"], row["score"], row["labels"]) for row in rows] == [
        ("images/b.jpg", "0.800", "1"),
        ("images/a.jpg", "0.000", "1"),
    ]
    assert rows[0]["reason"] == "1 just above the threshold (cat 0.52)"


def test_with_tiles_the_whole_picture_counts_too(tmp_path: Path) -> None:
    wide, small = picture(tmp_path / "in/wide.png", size=(80, 40)), picture(tmp_path / "in/small.png", size=(32, 32))
    both = detections((0, 0, 80, 40, 0.75, 0), (0, 0, 80, 40, 0.6, 1))
    write("yolo", tmp_path / "out", replace(prediction(wide), whole=both), prediction(small))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/review.csv").read_text())))
    assert [(row["picture"], row["reason"].partition(" (")[0]) for row in rows] == [
        ("images/wide.png", "2 found on the whole picture, but not with tiles"),
        ("images/small.png", ""),
    ]
