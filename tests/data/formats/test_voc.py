"""Pascal VOC: one-based inclusive boxes, alphabetical classes, all usual folder layouts."""

from pathlib import Path

import pytest
from PIL import Image

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.errors import DataError


def thing(name: str = "dog", box: tuple[object, ...] | None = (11, 21, 30, 40), extra: str = "") -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, box, strict=True)) if box else ""
    return f"<object><name>{name}</name>{extra}{f'<bndbox>{inner}</bndbox>' if box else ''}</object>"


def annotate(file: Path, *things: str, size: tuple[int, int] | None = (100, 50), filename: str = "x.jpg") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    said = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    file.write_text(f"<annotation><filename>{filename}</filename>{said}{''.join(things)}</annotation>")


def draw(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (100, 50)).save(file)


def devkit(root: Path, **lists: str) -> Path:
    """Images a (a dog), b (a cat), c (no objects), and ImageSets/Main lists."""
    for stem, things in (("a", [thing()]), ("b", [thing("cat")]), ("c", [])):
        draw(root / "JPEGImages" / f"{stem}.jpg")
        annotate(root / "Annotations" / f"{stem}.xml", *things)
    for name, content in lists.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(content)
    return root


def stems(path: Path, split: str | None) -> list[str]:
    return [sample.image.stem for sample in read_dataset(path, split=split).samples]


def test_pixels_count_from_one_and_ends_are_inclusive(tmp_path: Path) -> None:
    dataset = read_dataset(devkit(tmp_path, train="a\nb\n", val="c\n"), split="train")
    assert dataset.samples[0].boxes.tolist() == [[10, 20, 30, 40]]
    assert dataset.format == "voc"
    assert dataset.findings == []


def test_classes_are_alphabetical_over_all_files_with_ids_from_one(tmp_path: Path) -> None:
    devkit(tmp_path, train="a\n", val="b\n")
    for split in ("train", "val"):
        dataset = read_dataset(tmp_path, split=split)
        assert dataset.classes.to_json() == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert dataset.samples[0].classes.tolist() == [0]


def test_difficult_objects_are_ignored_and_parts_are_not_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    devkit(tmp_path)
    annotate(tmp_path / "Annotations/a.xml", thing(extra="<difficult>1</difficult>"), thing(box=(1, 1, 9, 9)) + part)
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].ignore.tolist() == [True, False]
    assert "head" not in dataset.classes.names


def test_lists_name_the_splits_and_may_have_columns_and_suffixes(tmp_path: Path) -> None:
    devkit(tmp_path, train="b.jpg\na  1\n\n", val="c -1\n", cat_train="a 1\n")
    assert stems(tmp_path, "train") == ["a", "b"]
    assert stems(tmp_path, "val") == ["c"]
    assert stems(tmp_path, "all") == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "Validation"])
def test_lists_have_the_names_of_splits_in_any_case(name: str, tmp_path: Path) -> None:
    devkit(tmp_path, Train="a\n", **{name: "b\n"})
    assert stems(tmp_path, "train") == ["a"]
    assert stems(tmp_path, "val") == ["b"]


def test_a_name_that_ends_like_the_column_is_kept(tmp_path: Path) -> None:
    devkit(tmp_path, train="photo 1\nphoto 1 -1\na 1\nJPEGImages/a.jpg\n", val="b\n")
    for stem in ("photo 0", "photo 1", "photo"):
        draw(tmp_path / "JPEGImages" / f"{stem}.jpg")
        annotate(tmp_path / "Annotations" / f"{stem}.xml", thing())
    assert stems(tmp_path, "train") == ["a", "photo 1"]


def test_two_files_for_one_image_are_put_together(tmp_path: Path) -> None:
    devkit(tmp_path)
    annotate(tmp_path / "Annotations" / "a (2).xml", thing("cat", (1, 1, 9, 9)), filename="a.jpg")
    dataset = read_dataset(tmp_path, split="all")
    assert [(sample.image.stem, len(sample.boxes)) for sample in dataset.samples] == [("a", 2), ("b", 1), ("c", 0)]
    assert [(finding.id, finding.place) for finding in dataset.findings] == [("image-listed-twice", "a.jpg (a.xml)")]


def cameras(root: Path, **lists: str) -> Path:
    """Images of the same name in two folders: a dog in cam1, a cat in cam2."""
    devkit(root, **lists)
    for camera, name in (("cam1", "dog"), ("cam2", "cat")):
        draw(root / "JPEGImages" / camera / "1.jpg")
        annotate(root / "Annotations" / camera / "1.xml", thing(name))
    return root


def test_images_of_one_name_in_two_folders_are_kept_apart(tmp_path: Path) -> None:
    cameras(tmp_path, train="cam1/1\nJPEGImages/cam2/1.jpg\n", val="cam1/1\n")
    dataset = read_dataset(tmp_path, split="train")
    assert [sample.image.parent.name for sample in dataset.samples] == ["cam1", "cam2"]
    assert [dataset.classes.names[int(sample.classes[0])] for sample in dataset.samples] == ["dog", "cat"]
    assert [sample.image.parent.name for sample in read_dataset(tmp_path, split="val").samples] == ["cam1"]


def test_an_entry_without_a_folder_is_the_file_outside_the_folders(tmp_path: Path) -> None:
    cameras(tmp_path, train="a\n", val="b\n")
    draw(tmp_path / "JPEGImages" / "cam1" / "a.jpg")
    annotate(tmp_path / "Annotations" / "cam1" / "a.xml", thing("cat"))
    assert [sample.image.parent.name for sample in read_dataset(tmp_path, split="train").samples] == ["JPEGImages"]


def test_an_entry_that_fits_two_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the entry 1 matches 2 annotation files, in cam1, cam2") as caught:
        read_dataset(cameras(tmp_path, train="1\n", val="a\n"), split="train")
    assert (caught.value.where, caught.value.remedy) == (
        str(tmp_path / "ImageSets/Main/train.txt"),
        "write the folder too, such as cam1/1",
    )


def test_without_lists_each_file_has_the_image_of_its_own_folder(tmp_path: Path) -> None:
    images = [sample.image.relative_to(tmp_path) for sample in read_dataset(cameras(tmp_path), split="all").samples]
    assert [str(image) for image in images] == [
        f"JPEGImages/{name}.jpg" for name in ("a", "b", "c", "cam1/1", "cam2/1")
    ]


def test_voc2007_trains_on_trainval_and_takes_test_for_val(tmp_path: Path) -> None:
    devkit(tmp_path, trainval="a\nb\n", test="c\n")
    assert stems(tmp_path, "train") == ["a", "b"]
    assert stems(tmp_path, "val") == ["c"]


def test_trainval_beside_val_alone_loses_the_val_images(tmp_path: Path) -> None:
    devkit(tmp_path, trainval="a\nb\nc\n", val="c\n")
    assert stems(tmp_path, "train") == ["a", "b"]


def test_without_lists_all_files_are_one_set_that_is_divided(tmp_path: Path) -> None:
    devkit(tmp_path)
    assert len(read_dataset(tmp_path, split="train")) == 2
    assert len(read_dataset(tmp_path, split="val")) == 1


@pytest.mark.parametrize("inner", ["VOCdevkit/VOC2012", "VOC2012", "."])
def test_the_devkit_is_found_below_the_folder(inner: str, tmp_path: Path) -> None:
    devkit(tmp_path / inner, train="a\n", val="b\n")
    assert stems(tmp_path, "train") == ["a"]


def test_two_devkits_are_ambiguous(tmp_path: Path) -> None:
    devkit(tmp_path / "VOC2007")
    devkit(tmp_path / "VOC2012")
    with pytest.raises(DataError, match="2 VOC data sets here, VOC2007, VOC2012"):
        read_dataset(tmp_path)


def test_xml_next_to_the_images_is_read_with_folders_as_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        draw(tmp_path / split / f"{split}.png")
        annotate(tmp_path / split / f"{split}.xml", thing())
    assert stems(tmp_path, "train") == ["train"]
    assert stems(tmp_path, "val") == ["valid"]
    assert stems(tmp_path / "valid", "all") == ["valid"]


def test_names_of_split_folders_may_be_capitals(tmp_path: Path) -> None:
    for split in ("Train", "Validation"):
        draw(tmp_path / split / f"{split}.png")
        annotate(tmp_path / split / f"{split}.xml", thing())
    assert stems(tmp_path, "train") == ["Train"]
    assert stems(tmp_path, "val") == ["Validation"]


def test_lower_case_folder_names_are_read(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    annotate(tmp_path / "annotations" / "a.xml", thing())
    assert stems(tmp_path, "all") == ["a"]


def test_an_image_is_found_by_the_xml_file_name_then_by_filename(tmp_path: Path) -> None:
    devkit(tmp_path)
    draw(tmp_path / "JPEGImages" / "x.jpg")
    annotate(tmp_path / "Annotations" / "other.xml", thing(), filename="C:\\x.jpg")
    assert stems(tmp_path, "all") == ["a", "b", "c", "x"]


def test_a_size_of_zero_is_read_from_the_image(tmp_path: Path) -> None:
    devkit(tmp_path)
    annotate(tmp_path / "Annotations" / "a.xml", thing(), size=(0, 0))
    annotate(tmp_path / "Annotations" / "b.xml", thing(), size=None)
    assert {(s.width, s.height) for s in read_dataset(tmp_path, split="all").samples} == {(100, 50)}


def test_bad_objects_and_missing_images_are_reported(tmp_path: Path) -> None:
    devkit(tmp_path)
    annotate(tmp_path / "Annotations" / "a.xml", thing(box=None), thing(box=(5, 5, "", 9)), thing(box=(9, 9, 5, 5)))
    annotate(tmp_path / "Annotations" / "gone.xml", thing(), filename="gone.jpg")
    dataset = read_dataset(tmp_path, split="all")
    assert len(dataset) == 3
    found = {finding.id: finding for finding in dataset.findings}
    assert set(found) == {"malformed-row", "degenerate-box", "missing-image"}
    assert found["malformed-row"].message.endswith(": 2")
    assert found["missing-image"].place == "gone.jpg"


def test_an_object_without_a_name_is_reported(tmp_path: Path) -> None:
    devkit(tmp_path)
    annotate(tmp_path / "Annotations" / "a.xml", thing(""), thing())
    dataset = read_dataset(tmp_path, split="all")
    assert len(dataset.samples[0].boxes) == 1
    assert [(finding.id, finding.place) for finding in dataset.findings] == [("malformed-row", "a.xml (no name)")]


def test_a_zero_based_box_is_clipped_without_a_finding(tmp_path: Path) -> None:
    devkit(tmp_path)
    annotate(tmp_path / "Annotations" / "a.xml", thing(box=(0, 0, 100, 50)))
    dataset = read_dataset(tmp_path, split="all")
    assert dataset.samples[0].boxes.tolist() == [[0, 0, 100, 50]]
    assert dataset.findings == []


def test_no_objects_anywhere_means_no_classes(tmp_path: Path) -> None:
    draw(tmp_path / "JPEGImages" / "a.jpg")
    annotate(tmp_path / "Annotations" / "a.xml")
    with pytest.raises(DataError, match="no classes"):
        read_dataset(tmp_path)


def test_a_list_with_only_missing_images_is_an_error(tmp_path: Path) -> None:
    devkit(tmp_path, train="a\n", val="z1\nz2\n")
    with pytest.raises(DataError, match="none of the 2 entries of the val split has its image"):
        read_dataset(tmp_path)


def test_unreadable_images_are_not_called_missing(tmp_path: Path) -> None:
    devkit(tmp_path, train="a\n", val="c\n")
    annotate(tmp_path / "Annotations" / "a.xml", thing(), size=None)
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="images that cannot be read: 1"):
        read_dataset(tmp_path, split="train")


def test_the_working_directory_may_be_the_folder_of_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devkit(tmp_path)
    monkeypatch.chdir(tmp_path / "Annotations")
    (sample, *_) = read_dataset(Path(), split="all").samples
    assert sample.image == tmp_path / "JPEGImages" / "a.jpg"


def test_a_size_unlike_that_of_the_file_is_told(tmp_path: Path) -> None:
    root = devkit(tmp_path, train="a\nb\nc\n", val="c\n")
    annotate(root / "Annotations" / "b.xml", thing("cat"), size=(50, 100))
    (finding,) = read_dataset(root, split="train").findings
    assert (finding.id, finding.place) == ("size-mismatch", "b.jpg (file 100x50, annotations 50x100)")


def test_shares_instead_of_pixels_are_an_error(tmp_path: Path) -> None:
    root = devkit(tmp_path)
    boxes = ((0.1, 0.2, 0.5, 0.5), (0, 0.2, 0.6, 1), (0.25, 0.3, 0.5, 0.75))
    for stem in "ab":
        annotate(root / "Annotations" / f"{stem}.xml", *(thing(box=box) for box in boxes))
    with pytest.raises(DataError, match="fractions of the image"):
        read_dataset(root, split="all")


def test_boxes_of_the_first_pixel_are_no_shares(tmp_path: Path) -> None:
    root = devkit(tmp_path)
    for name in ("b", "c"):
        annotate(root / "Annotations" / f"{name}.xml")
    annotate(root / "Annotations" / "a.xml", *(thing(name, (1, 1, 1, 1)) for name in ("x", "y", "z")))
    assert read_dataset(root, split="all").samples[0].boxes.tolist() == [[0, 0, 1, 1]] * 3
