"""Findings of the doctor on data sets with one problem each."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fcos_cli.data.doctor import examine, examine_pair, examine_splits
from fcos_cli.data.geometry import ResizeRule
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
    assert [finding.id for finding in listed] == ["missing-image", "pictures-without-objects"]


def test_classes_with_no_or_few_boxes_are_named() -> None:
    findings = found(dataset(sample(*[(0, 50, 50)] * 19)))
    assert findings["class-without-boxes"].place == "dog"
    assert findings["few-boxes"].place == "cat (19)"


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


def test_tiny_boxes_are_measured_at_the_input_size() -> None:
    data = dataset(sample(*PLENTY, *[(0, 20, 20)] * 20))  # 400 px to 100 px makes 20 px into 5
    assert "tiny-boxes" not in found(data)
    finding = found(data, resize=ResizeRule("letterbox", (100, 100)))["tiny-boxes"]
    assert finding.message.startswith("25% of 80 boxes")
    assert "100 x 100" in finding.message


def test_extreme_aspect_ratios_are_counted() -> None:
    assert found(dataset(sample(*PLENTY, (0, 201, 20), (0, 200, 20))))["extreme-aspect"].message.endswith(": 1")


def test_crowded_images_are_told_with_the_limits() -> None:
    finding = found(dataset(sample(*PLENTY, *PLENTY)))["crowded-images"]
    assert "--set model.max_detections=200 " in finding.remedy
    plenty = [*PLENTY] * 4
    assert f"={100 * -(-len(plenty) // 100)} " in found(dataset(sample(*plenty)))["crowded-images"].remedy
    assert "crowded-images" not in found(dataset(sample(*PLENTY)))


def test_ignored_boxes_do_not_count_as_boxes() -> None:
    assert "no-boxes" in found(dataset(sample((0, 50, 50), ignore=True)))


def test_a_data_set_without_objects_is_an_error() -> None:
    findings = found(dataset(sample(), sample()))
    assert findings["no-boxes"].severity == "error"
    assert findings["pictures-without-objects"].message.endswith(": 2 of 2")


def test_an_image_in_both_splits_is_leakage_whatever_its_name(tmp_path: Path) -> None:
    for name, content in (("t1", b"same"), ("v1", b"same"), ("t2", b"four"), ("t3", b"longer")):
        (tmp_path / name).write_bytes(content)
    train = dataset(*(sample(image=tmp_path / name) for name in ("t1", "t2", "t3", "gone")))
    (finding,) = examine_pair(train, dataset(sample(image=tmp_path / "v1"), sample(image=tmp_path / "lost")))
    assert (finding.id, finding.severity, finding.place) == ("leakage", "error", "t1 = v1")


def test_different_class_tables_are_reported() -> None:
    (finding,) = examine_pair(dataset(), dataset(table=ClassTable(("dog", "cat"), (1, 2))))
    assert finding.id == "class-tables-differ"


def squares(side: int, *, image: tuple[int, int] = (640, 640), share: float = 0.5) -> Dataset:
    """Twenty images, in each of which this share of 20 squares has `side` px and the others 200 px."""
    count = round(20 * share)
    data = dataset(*[sample(*[(0, side, side)] * count, *[(1, 200, 200)] * (20 - count))] * 20)
    return replace(data, samples=[replace(s, width=image[0], height=image[1]) for s in data.samples])


def tiny(data: Dataset, size: tuple[int, int] = (320, 320), **options) -> Finding:
    return found(data, resize=ResizeRule("letterbox", size), **options)["tiny-boxes"]


def test_the_cheapest_remedy_for_tiny_boxes_is_named() -> None:
    # 15 of 640 px are 7.5 of 320: three quarters more are enough
    finding = tiny(squares(15))
    assert finding.message == (
        "50% of 400 boxes are less than 8 px wide or high at input size 320 x 320 (letterbox): "
        "--size 480 leaves 0%, model.strides 4…64 0%, --tile 480 0%"
    )
    assert finding.remedy == "use --size 480"
    # 10 px are 5: too few at 480 (7.5), enough for a stride of 4, at 640 and in tiles of 320
    finding = tiny(squares(10))
    assert finding.message.endswith("--size 640 leaves 0%, model.strides 4…64 0%, --tile 320 0%")
    assert finding.remedy == 'use --set "model.strides=[4,8,16,32,64]"'


def test_only_tiles_help_in_very_large_images() -> None:
    finding = tiny(squares(20, image=(4000, 3000)))  # 1.6 px of 320
    assert finding.message.endswith("--size 1280 leaves 50%, model.strides 4…64 50%, --tile 640 0%")
    assert finding.remedy == "use --tile 640"


def test_without_a_sufficient_remedy_the_best_of_each_kind_is_shown() -> None:
    # 20 % have 1 px of 640 and 40 % have 12: only the latter can be made large enough
    one, twelve = squares(1, share=0.4), squares(12, share=0.8)
    finding = tiny(replace(one, samples=[*one.samples, *twelve.samples]))
    assert "60% of 800 boxes" in finding.message
    assert finding.message.endswith("--size 1280 leaves 20%, model.strides 4…64 20%, --tile 160 20%")
    assert finding.remedy == "combine two of these"


def test_tiles_are_not_proposed_for_images_smaller_than_all_of_them() -> None:
    small = squares(3, image=(160, 160))  # 6 px of 320, where the smallest tiles are 160
    assert tiny(small).message.endswith("--size 480 leaves 0%, model.strides 4…64 0%")
    wide = replace(small, samples=[replace(s, width=161) for s in small.samples])  # where they do not help
    assert tiny(wide).message.endswith("--tile 160 50%")


def test_a_finer_level_is_not_proposed_to_a_network_that_has_it() -> None:
    finding = tiny(squares(5), stride=4)
    assert "less than 4 px" in finding.message
    assert "model.strides" not in finding.message
    assert "tiny-boxes" not in found(squares(9), resize=ResizeRule("letterbox", (320, 320)), stride=4)


def test_a_larger_input_is_an_option_of_the_command_line() -> None:
    finding = tiny(squares(15, image=(640, 480)), (240, 320))
    assert "--size 352x480 leaves 0%" in finding.message


def test_without_an_input_size_remedies_are_general() -> None:
    assert "tiny-boxes" not in found(squares(15))
    assert found(squares(7))["tiny-boxes"].remedy == "train with a larger --size, or on tiles (--tile)"


def test_findings_of_both_splits_are_listed_once_with_their_split() -> None:
    shared, own = Finding("outside", "warning", "c.json", "…"), Finding("missing-image", "error", "v.png", "…")
    train = dataset(sample(*PLENTY), findings=[shared])
    val = replace(dataset(sample(image=Path("v.png")), findings=[shared, own]), split="val")
    listed = [(split, finding.id) for split, finding in examine_splits(train, val)]
    assert listed == [("train", "outside"), ("val", "missing-image"), ("val", "no-val-boxes")]
    labelled = replace(val, samples=[sample(*PLENTY)])
    assert ("val", "no-val-boxes") not in [(split, finding.id) for split, finding in examine_splits(train, labelled)]
