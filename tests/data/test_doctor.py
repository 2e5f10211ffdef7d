"""Findings of the doctor on data sets with one problem each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data import doctor
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.data.doctor import examine, examine_splits, find_leakage
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, Finding, Sample
from fcos_cli.model.classes import ClassTable

TABLE = ClassTable(("cat", "dog"), (1, 2))


def sample(*boxes: tuple[int, float, float], image: Path = Path("a.png"), ignore: bool = False) -> Sample:
    """A 400 x 400 image with (class, width, height) boxes in its corner."""
    corners = np.array([(0, 0, w, h) for _, w, h in boxes], np.float32).reshape(-1, 4)
    classes = np.array([c for c, _, _ in boxes], np.int64)
    flags = np.full(len(boxes), ignore)
    return Sample(image, 1, 400, 400, corners, classes, flags, corners[:, 2] * corners[:, 3].astype(np.float64))


def dataset(*samples: Sample, table: ClassTable = TABLE, findings: list[Finding] | None = None) -> Dataset:
    return Dataset(list(samples), table, "coco", "train", Path("x.json"), "", findings or [])


def found(data: Dataset, **options) -> dict[str, Finding]:
    return {finding.id: finding for finding in examine(data, **options)}


PLENTY = [(0, 50, 50)] * 30 + [(1, 50, 50)] * 30


def test_a_valid_data_set_has_no_findings() -> None:
    assert examine(dataset(sample(*PLENTY))) == []


def test_the_readers_findings_are_included_and_the_most_severe_come_first() -> None:
    told = Finding("missing-image", "error", "b.png", "…")
    listed = examine(dataset(sample(*PLENTY), sample(), findings=[told]))
    assert [finding.id for finding in listed] == ["missing-image", "images-without-objects"]


def test_classes_with_no_or_few_boxes_are_named() -> None:
    findings = found(dataset(sample(*[(0, 50, 50)] * 19)))
    assert findings["class-without-boxes"].place == "dog"
    assert findings["few-boxes"].place == "cat (19)"
    assert findings["few-boxes"].remedy == "too few to learn well; label more"


def test_class_imbalance_is_reported_from_fifty_to_one() -> None:
    assert "imbalance" not in found(dataset(sample(*[(0, 50, 50)] * 980, *[(1, 50, 50)] * 20)))
    assert found(dataset(sample(*[(0, 50, 50)] * 1000, *[(1, 50, 50)] * 20)))["imbalance"].place == "cat, dog"


def test_classes_that_a_mirror_changes_are_only_told_about() -> None:
    names = ("A", "7", "42", "nine of hearts", "turn_left", "Right arrow", "leftover", "phone", "boeing747", "cat")
    data = dataset(sample(*PLENTY), table=ClassTable(names, tuple(range(len(names)))))
    finding = found(data)["mirrored-classes"]
    assert finding.severity == "info"
    assert finding.message.endswith(": 6")
    assert "augment.flip=0" in finding.remedy
    assert "mirrored-classes" not in found(dataset(sample(*PLENTY)))


def test_extreme_aspect_ratios_are_counted() -> None:
    assert found(dataset(sample(*PLENTY, (0, 201, 20), (0, 200, 20))))["extreme-aspect"].message.endswith(": 1")


def test_crowded_images_are_told_with_the_limits() -> None:
    finding = found(dataset(sample(*PLENTY, *PLENTY)))["crowded-images"]
    assert "--set model.max_detections=200;" in finding.remedy
    plenty = [*PLENTY] * 4
    assert f"={100 * -(-len(plenty) // 100)};" in found(dataset(sample(*plenty)))["crowded-images"].remedy
    assert "crowded-images" not in found(dataset(sample(*PLENTY)))


def test_ignored_boxes_do_not_count_as_boxes() -> None:
    assert "no-boxes" in found(dataset(sample((0, 50, 50), ignore=True)))


def test_a_data_set_without_objects_is_an_error() -> None:
    findings = found(dataset(sample(), sample()))
    assert findings["no-boxes"].severity == "error"
    assert findings["images-without-objects"].message.endswith(": 2 of 2")


def test_an_image_in_both_splits_is_leakage_whatever_its_name(tmp_path: Path) -> None:
    for name, content in (("t1", b"same"), ("v1", b"same"), ("t2", b"four"), ("t3", b"longer")):
        (tmp_path / name).write_bytes(content)
    train = dataset(*(sample(image=tmp_path / name) for name in ("t1", "t2", "t3", "gone")))
    (finding,) = find_leakage(train, dataset(sample(image=tmp_path / "v1"), sample(image=tmp_path / "lost")))
    assert (finding.id, finding.severity, finding.place) == ("leakage", "error", "t1 = v1")


def test_files_of_one_length_are_read_only_where_they_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digested: list[str] = []
    digest = doctor._digest

    def record(file: Path) -> bytes | None:
        digested.append(file.name)
        return digest(file)

    monkeypatch.setattr(doctor, "_digest", record)
    middles = {"t1": b"a", "t2": b"b", "t3": b"c", "v1": b"c", "v2": b"d"}
    for name, middle in middles.items():  # as uncompressed images of one size
        (tmp_path / name).write_bytes(bytes(9000) + middle + bytes(8999))
    (tmp_path / "t4").write_bytes(b"x" + bytes(8999) + b"c" + bytes(8999))  # differs in its first byte
    train, val = (dataset(*(sample(image=file) for file in sorted(tmp_path.glob(f"{key}*")))) for key in "tv")
    (finding,) = find_leakage(train, val)
    assert finding.place == "t3 = v1"
    assert sorted(digested) == ["t3", "t4", "v1"]


def test_findings_of_both_splits_are_listed_once_with_their_split() -> None:
    shared, own = Finding("outside", "warning", "c.json", "…"), Finding("missing-image", "error", "v.png", "…")
    train = dataset(sample(*PLENTY), findings=[shared])
    val = replace(dataset(sample(image=Path("v.png")), findings=[shared, own]), split="val")
    listed = [(split, finding.id) for split, finding in examine_splits(train, val)]
    assert listed == [("train", "outside"), ("val", "missing-image"), ("val", "no-val-boxes")]
    labelled = replace(val, samples=[sample(*PLENTY)])
    assert ("val", "no-val-boxes") not in [(split, finding.id) for split, finding in examine_splits(train, labelled)]


@pytest.mark.parametrize(("images", "boxes", "small"), [(10, 5, False), (9, 9, True), (12, 4, True), (1, 60, True)])
def test_a_val_split_with_few_boxes_or_images_is_told(images: int, boxes: int, small: bool) -> None:
    train = dataset(sample(*PLENTY))
    val = dataset(*[sample(*[(0, 50, 50)] * boxes)] * images, sample(), sample((0, 9, 9), ignore=True))
    found = {finding.id: finding for split, finding in examine_splits(train, val) if split == "val"}
    assert ("small-val" in found) == small
    if small:
        assert f"(boxes: {images * boxes}, images with boxes: {images})" in found["small-val"].message
        assert "val_fraction" not in found["small-val"].remedy


def test_of_divided_data_more_can_be_held_out(tmp_path: Path) -> None:
    file = write_shapes(tmp_path / "data", train=20, val=1, size=32) / "train.json"
    train, val = (read_dataset(file, split=split) for split in ("train", "val"))
    (finding,) = [finding for split, finding in examine_splits(train, val) if split == "val"]
    assert (finding.id, finding.severity) == ("small-val", "warning")
    assert "--set data.val_fraction=0.3" in finding.remedy
