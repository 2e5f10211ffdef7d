"""Every published dialect, compared with results of its own code (mmdetection, detectron2) or its documented rules.

The README in `vectors/` says how the results were recorded. torchvision itself is run in `test_torchvision`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from fcos_cli.data.geometry import Geometry, ResizeRule, _interpolate
from fcos_cli.model.config import REALTIME_STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.decode import Candidates, decode
from fcos_cli.model.head import Head, RawOutputs
from fcos_cli.model.losses import compute_losses
from fcos_cli.model.nms import keep_mask, suppress
from fcos_cli.model.points import Points, all_points, make_grids
from fcos_cli.model.presets import PRESETS
from fcos_cli.model.targets import Targets, Truth, assign_targets
from fcos_cli.model.topk import topk_candidates
from fcos_cli.runtime.detector import to_source
from fcos_cli.runtime.results import Detections, RawDetections

VECTORS = Path(__file__).parent.parent / "vectors"
FAMILIES = ("mmdet-base", "mmdet-tricks", "detectron2", "fcos-v1", "fcos-imprv", "adelaidet")
EXECUTED = FAMILIES[:3]
ALL = (*FAMILIES, "realtime")
"""realtime: AdelaiDet's with three levels."""


class Vectors(dict[str, Tensor]):
    """The tensors of a file, and its metadata `about`."""

    def __init__(self, name: str) -> None:
        with safe_open(VECTORS / f"{name}.safetensors", framework="pt") as file:
            super().__init__({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (not a dict)
            self.about: dict[str, Any] = json.loads(file.metadata()["about"])


INPUTS = Vectors("inputs")
THEIRS = {name: Vectors(name) for name in (*ALL, "adelaidet-iou")}


def config_of(family: str, **changes: Any) -> ModelConfig:
    """Return the preset's config. changes: to the config, or to its conventions."""
    preset = PRESETS["adelaidet" if family == "realtime" else family]
    if family == "realtime":
        changes = {"strides": REALTIME_STRIDES, "ranges": (64, 128), **changes}
    rules = {key: changes.pop(key) for key in list(changes) if key in Conventions.__dataclass_fields__}
    return ModelConfig(**{**preset.model, **changes}, conventions=replace(preset.conventions, **rules))


def points_of(config: ModelConfig, padded: tuple[int, int]) -> Points:
    levels = [(-(-padded[0] // stride), -(-padded[1] // stride)) for stride in config.strides]
    return all_points(make_grids(levels, config.strides, conventions=config.conventions, input_size=padded))


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("padded", [(128, 160), (96, 224)])
def test_points(family: str, padded: tuple[int, int]) -> None:
    theirs = THEIRS[family].get(f"points.{padded[0]}x{padded[1]}")
    if theirs is not None:
        assert torch.equal(points_of(config_of(family), padded).xy, theirs)
    else:  # worked out for one size only
        assert "points.96x224" in THEIRS[family]


def truth_of(config: ModelConfig, *pairs: tuple[Tensor, Tensor]) -> Truth:
    """Return boxes and labels of each image. In inclusive dialects, boxes end at their last pixel."""
    most = max((len(labels) for _, labels in pairs), default=0)
    boxes, classes = torch.zeros(len(pairs), most, 4), torch.full((len(pairs), most), -1)
    for place, (given, labels) in enumerate(pairs):
        boxes[place, : len(given)], classes[place, : len(given)] = given, labels
    if config.conventions.box_ends == "inclusive":
        boxes[..., 2:] -= 1
    return Truth(boxes, classes, torch.zeros_like(classes, dtype=torch.bool))


def targets_of(config: ModelConfig, case: str) -> Targets:
    pairs = [(INPUTS[f"assign.{case}.{i}.boxes"], INPUTS[f"assign.{case}.{i}.labels"]) for i in (0, 1)]
    points = points_of(config, tuple(INPUTS.about["assign"][case]["padded"]))
    return assign_targets(points, truth_of(config, *pairs), ranges=config.ranges, conventions=config.conventions)


def same_targets(ours: Targets, theirs: Vectors, case: str) -> bool:
    for picture in (0, 1):
        expected = {
            part: theirs[f"assign.{case}.{picture}.{part}"] for part in ("index", "label", "ltrb", "centerness")
        }
        index = (ours.classes[picture] >= 0).nonzero()[:, 0]
        if not torch.equal(index, expected["index"]) or not torch.equal(
            ours.classes[picture, index], expected["label"]
        ):
            return False
        if not torch.equal(ours.ltrb[picture, index], expected["ltrb"]):
            return False
        torch.testing.assert_close(ours.centerness[picture, index], expected["centerness"], rtol=1e-6, atol=1e-7)
    return True


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("case", ["borders", "areas", "edges"])
def test_targets(family: str, case: str) -> None:
    assert same_targets(targets_of(config_of(family), case), THEIRS[family], case)


def raw_of(config: ModelConfig, family: str, name: str) -> RawOutputs:
    """Return the recorded raw outputs, with distances converted to pixels by our code."""
    about = INPUTS.about["raw"][name]
    config = config.model_copy(update={"channels": 32, "convs": 1})
    head = Head(config, classes=about["classes"]).eval()
    for scale, value in zip(head.regression_head.scales, INPUTS.about["scales"], strict=False):
        scale.data.fill_(value)
    sizes = [tuple(level) for level in about["levels"][: len(config.strides)]]
    counts = [height * width for height, width in sizes]

    def maps(values: Tensor) -> list[Tensor]:
        parts = values[:, : sum(counts)].split(counts, dim=1)
        return [part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]

    box = maps(INPUTS[f"raw.{name}.{THEIRS[family].about['box']}"])
    with torch.no_grad():
        ltrb = [head._distances(part, level, config.strides[level]) for level, part in enumerate(box)]
    return RawOutputs(maps(INPUTS[f"raw.{name}.cls"]), ltrb, maps(INPUTS[f"raw.{name}.ctr"][..., None]))


@pytest.mark.parametrize("family", EXECUTED)
def test_distances(family: str) -> None:
    _, ltrb, _ = raw_of(config_of(family), family, "c3").flat()
    torch.testing.assert_close(ltrb[0], THEIRS[family]["ltrb.c3"], rtol=1e-6, atol=2e-5)


def detections_of(config: ModelConfig, family: str, name: str, case: str) -> list[Detections]:
    """Return the detections for both images, postprocessed as in a detector."""
    about = THEIRS[family].about[f"post.{name}.{case}"]
    config = config.model_copy(
        update={"candidates": about["topk_per_level"], "max_detections": about["max_detections"]}
    )
    assert (config.score_threshold, config.nms_iou) == (about["score_threshold"], about["nms_iou"])
    height, width = INPUTS.about["raw"][name]["padded"]
    sizes = torch.tensor(about["sizes"])
    candidates = decode(raw_of(config, family, name), height=height, width=width, config=config, sizes=sizes)
    rules = config.conventions
    found = suppress(candidates, iou=config.nms_iou, max_detections=config.max_detections, conventions=rules)
    originals = about["original"] or about["sizes"]
    geometries = [
        Geometry((original[1], original[0]), (size[1], size[0]), (0, 0))
        for original, size in zip(originals, about["sizes"], strict=True)
    ]
    return to_source(RawDetections(*(part.numpy() for part in found)), geometries, rules)


def same_detections(ours: list[Detections], theirs: Vectors, name: str, case: str) -> bool:
    for picture, found in enumerate(ours):
        expected = {part: theirs[f"post.{name}.{case}.{picture}.{part}"] for part in ("boxes", "scores", "labels")}
        # ours end with the picture; inclusive ones of theirs may reach a fraction of a pixel further
        about = theirs.about[f"post.{name}.{case}"]
        height, width = (about["original"] or about["sizes"])[picture]
        expected["boxes"] = expected["boxes"].minimum(torch.tensor([width, height] * 2))
        if found.classes.tolist() != expected["labels"].tolist():
            return False
        if np.abs(found.boxes - expected["boxes"].numpy()).max(initial=0) > 1e-4:
            return False
        if np.abs(found.scores - expected["scores"].numpy()).max(initial=0) > 1e-6:
            return False
    return True


POST = [(family, name) for family in ALL for name in ("c3", "c80") if name == "c3" or family in EXECUTED]


@pytest.mark.parametrize(("family", "name"), POST)
@pytest.mark.parametrize("case", ["default", "few", "rescaled"])
def test_detections(family: str, name: str, case: str) -> None:
    assert same_detections(detections_of(config_of(family), family, name, case), THEIRS[family], name, case)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes(family: str) -> None:
    rule = ResizeRule.from_json(PRESETS[family].geometry)
    file = {"mmdet": "mmdet", "fcos": "fcos"}.get(family.split("-")[0], "detectron2")
    expected = json.loads((VECTORS / f"sizes_{file}.json").read_text())
    sizes = {key: tuple(int(side) for side in key.split("x")) for key in expected if "x" in key}
    assert len(sizes) > 60
    assert {key: list(rule.geometry(*size).resized) for key, size in sizes.items()} == {
        key: expected[key] for key in sizes
    }


@pytest.mark.parametrize("family", EXECUTED)
def test_pixels(family: str) -> None:
    """Mean, standard deviation and padding; the recorded channels are in BGR order."""
    rule = replace(ResizeRule.from_json(PRESETS[family].geometry), size=(24, 30))
    images, _ = rule.batch([INPUTS["picture"].numpy()])
    config = config_of(family)
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (config.mean, config.std))
    ours = torch.from_numpy(((images - mean) / std).astype(np.float32)).flip(1)
    torch.testing.assert_close(ours, THEIRS[family]["input"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(50, 33), (19, 13)])
def test_resized_images_match_detectron2_exactly_and_opencv_within_one(size: tuple[int, int]) -> None:
    picture, key = INPUTS["picture"].numpy(), f"resized.{size[0]}x{size[1]}"
    geometry = Geometry((30, 24), size, (0, 0))

    class Rule(ResizeRule):
        def geometry(self, width: int, height: int) -> Geometry:
            return geometry

    assert np.array_equal(Rule(filter="pillow").resize(picture)[0], THEIRS["detectron2"][key].numpy())
    ours = Rule(filter="point").resize(picture)[0].astype(int)
    assert np.abs(ours - THEIRS["mmdet-base"][key].numpy()).max() <= 1
    exact = _interpolate(picture, size)
    assert np.abs(exact - ours).max() <= 0.5


LOSSES: dict[str, dict[str, Any]] = {
    "mmdet-base": {"box_loss": "iou", "box_by_centerness": True},
    "mmdet-tricks": {"box_loss": "giou", "box_by_centerness": True},
    "detectron2": {"box_loss": "giou"},
}


@pytest.mark.parametrize("family", LOSSES)
@pytest.mark.parametrize(("case", "pictures"), [("full", (0, 1)), ("half", (0,)), ("none", ())])
def test_losses(family: str, case: str, pictures: tuple[int, ...]) -> None:
    """detectron2 divides by a moving average of the number of positive points, we by the number itself."""
    config, theirs = config_of(family), THEIRS[family]
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    pairs = [(INPUTS[f"truth.{i}.boxes"], INPUTS[f"truth.{i}.labels"]) if i in pictures else nothing for i in (0, 1)]
    points = points_of(config, (128, 160))
    targets = assign_targets(points, truth_of(config, *pairs), ranges=config.ranges, conventions=config.conventions)
    ours = compute_losses(raw_of(config, family, "c3"), targets, points, **LOSSES[family])
    factor, count = 1.0, max(int((targets.classes >= 0).sum()), 1)
    if family == "detectron2":
        factor = count / float(theirs[f"loss.{case}.normaliser"])
    names = {"cls": ("cls",), "box": ("bbox", "loc"), "centerness": ("centerness", "ctr")}
    for name, candidates in names.items():
        expected = next(theirs[key] for key in (f"loss.{case}.{their}" for their in candidates) if key in theirs)
        torch.testing.assert_close(ours[name] * factor, expected, rtol=2e-6, atol=1e-7)


SWITCHES = [
    ("mmdet-tricks", {"range_ends": "open"}),
    ("mmdet-tricks", {"range_ends": "half-open"}),
    ("detectron2", {"range_ends": "closed"}),
    ("detectron2", {"area": "exact"}),
    ("mmdet-base", {"area": "float32"}),
    ("mmdet-base", {"radius": 1.5}),
    ("mmdet-tricks", {"radius": 0.0}),
    ("mmdet-base", {"point_offset": 0.0}),
    ("mmdet-base", {"activation": "relu"}),
    ("mmdet-base", {"stride_normalised": True}),
    ("mmdet-base", {"scales": False}),
    ("mmdet-base", {"score": "sqrt"}),
    ("detectron2", {"score": "product"}),
    ("detectron2", {"threshold_on": "class"}),
    ("adelaidet", {"threshold_on": "score"}),
    ("mmdet-tricks", {"best_by": "score"}),
    ("adelaidet", {"best_by": "class"}),
    ("mmdet-tricks", {"clip": "input"}),
    ("mmdet-tricks", {"clip": "after"}),
    ("detectron2", {"clip": "picture"}),
    ("fcos-imprv", {"box_ends": "exclusive"}),
    ("mmdet-tricks", {"empty_boxes": "after-nms"}),
    ("detectron2", {"empty_boxes": "keep"}),
    ("detectron2", {"empty_boxes": "before-nms"}),
]


@pytest.mark.parametrize(("family", "wrong"), SWITCHES, ids=lambda value: str(value))
def test_each_wrong_switch_changes_the_result(family: str, wrong: dict[str, Any]) -> None:
    config, theirs = config_of(family, **wrong), THEIRS[family]
    if set(wrong) & {"range_ends", "area", "radius", "point_offset"}:
        right = [same_targets(targets_of(config, case), theirs, case) for case in ("borders", "areas", "edges")]
    else:
        names = [name for member, name in POST if member == family]
        cases = [(name, case) for name in names for case in ("default", "few", "rescaled")]
        right = [same_detections(detections_of(config, family, *which), theirs, *which) for which in cases]
    assert not all(right)


HAND = json.loads((VECTORS / "hand.json").read_text())


@pytest.mark.parametrize(("family", "kept"), [("fcos-v1", "kept_plus_one"), ("adelaidet", "kept")])
def test_inclusive_boxes_overlap_one_pixel_more(family: str, kept: str) -> None:
    case = HAND["nms_plus_one"]
    candidates = Candidates(*(torch.tensor([case[key]]) for key in ("boxes", "scores", "labels")))
    keep = keep_mask(
        candidates._replace(boxes=candidates.boxes.float()),
        iou=case["nms_iou"],
        conventions=PRESETS[family].conventions,
    )
    assert keep[0].nonzero()[:, 0].tolist() == case[kept]


def test_unclipped_boxes_of_different_classes_overlap_in_detectron2() -> None:
    theirs = THEIRS["detectron2"]
    candidates = Candidates(*(theirs[f"corner.{part}"][None] for part in ("boxes", "scores", "labels")))
    rules = PRESETS["detectron2"].conventions
    keep = keep_mask(candidates, iou=0.6, conventions=rules)
    assert keep[0].nonzero()[:, 0].tolist() == theirs["corner.keep"].tolist()
    exact = keep_mask(candidates, iou=0.6, conventions=replace(rules, nms="exact"))
    assert exact.all()


def test_area_of_inclusive_boxes() -> None:
    case = HAND["tie_of_areas"]
    boxes, labels = torch.tensor(case["boxes"], dtype=torch.float32)[None], torch.tensor([[0, 1]])
    points = Points(torch.tensor([case["point"]], dtype=torch.float32), torch.tensor([8.0]), torch.tensor([0]))
    truth = Truth(boxes, labels, torch.zeros_like(labels, dtype=torch.bool))
    rules = replace(PRESETS["fcos-v1"].conventions, radius=0.0)
    for area, matched in (("plus-one", "matched_plus_one"), ("exact", "matched")):
        found = assign_targets(points, truth, ranges=config_of("fcos-v1").ranges, conventions=replace(rules, area=area))
        assert found.box.tolist() == [[case[matched]]]


@pytest.mark.parametrize(("ends", "count"), [("closed", 1), ("open", 0)])
def test_score_exactly_at_the_threshold(ends: str, count: int) -> None:
    config = config_of("mmdet-base", threshold_ends=ends, score_threshold=0.5, candidates=4)
    scores, _ = topk_candidates(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), config=config)
    assert int((scores > 0).sum()) == count


def test_target_of_the_quality_branch() -> None:
    config = config_of("adelaidet-iou")
    assert config.conventions == replace(config_of("adelaidet").conventions, quality="iou")
    pairs = [(INPUTS[f"truth.{i}.boxes"], INPUTS[f"truth.{i}.labels"]) for i in (0, 1)]
    points = points_of(config, (128, 160))
    targets = assign_targets(points, truth_of(config, *pairs), ranges=config.ranges, conventions=config.conventions)
    raw = raw_of(config, "adelaidet", "c3")
    found = {
        quality: compute_losses(raw, targets, points, quality=quality)["centerness"]
        for quality in ("iou", "centerness")
    }
    torch.testing.assert_close(found["centerness"], THEIRS["adelaidet"]["loss.full.ctr"], rtol=2e-6, atol=0)
    assert abs(float(found["iou"] / found["centerness"]) - 1) > 0.01


@pytest.mark.parametrize(("padded", "same"), [((256, 384), True), ((96, 224), False)])
def test_torchvision_points_are_nominal_only_for_multiples_of_128(padded: tuple[int, int], same: bool) -> None:
    xy = [points_of(config_of("torchvision", stride_rule=rule), padded).xy for rule in ("padded", "nominal")]
    assert torch.equal(*xy) is same


@pytest.mark.parametrize("ranges", [(32, 128), (64, 100)])
def test_wrong_ranges_of_three_levels_change_the_targets(ranges: tuple[float, float]) -> None:
    config = config_of("realtime", ranges=ranges)
    cases = ("borders", "areas", "edges")
    assert not all(same_targets(targets_of(config, case), THEIRS["realtime"], case) for case in cases)


def test_every_switch_is_tested() -> None:
    shown = {name for _, wrong in SWITCHES for name in wrong}
    shown |= {"area", "threshold_ends", "quality", "stride_rule", "nms"}  # the tests before this one
    shown |= {"centerness_on"}  # test_head, and the whole networks of test_convert_whole
    assert shown == set(Conventions.__dataclass_fields__)
