"""The preset `torchvision`, compared with the installed torchvision: the same random weights and images.

The network is the published one. Images are smaller, with a shorter side of 160 instead of 800, so that 30 of them take
seconds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from fcos_cli.data import geometry as geometry_module
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.losses import compute_losses
from fcos_cli.model.presets import PRESETS
from fcos_cli.model.targets import Truth, assign_targets
from fcos_cli.runtime.detector import detect_batch, to_source
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from fcos_cli.runtime.results import RawDetections

pytestmark = pytest.mark.slow

CLASSES, SHORT, LONG = 7, 160, 266
PRESET = PRESETS["torchvision"]
RULE = replace(ResizeRule.from_json(PRESET.geometry), size=(SHORT, LONG))

# width × height: smaller than a cell, tall, wide, odd, and the usual ones
SHAPES = [(5, 4), (3, 90), (90, 3), (64, 64), (65, 63), (33, 257), (257, 33), (100, 75), (75, 100), (640, 480)]
SHAPES += [(480, 640), (427, 640), (640, 426), (500, 375), (333, 500), (1, 1), (1, 200), (320, 240), (321, 239)]
SHAPES += [(159, 161), (160, 266), (266, 160), (267, 160), (199, 121), (121, 199), (800, 600), (51, 640), (88, 44)]
SHAPES += [(300, 299), (128, 256), (97, 101), (150, 150)]
GROUPS = [SHAPES[start : start + 4] for start in range(0, len(SHAPES), 4)]


def pictures(shapes: list[tuple[int, int]], *, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in shapes]


@cache
def both() -> tuple[Any, FCOS]:
    """Return torchvision's network with random weights that give detections, and ours with the same weights."""
    torch.manual_seed(0)
    theirs: Any = detection.fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=SHORT, max_size=LONG
    )
    with torch.no_grad():
        # its own initial weights, except for biases that let it find something
        theirs.head.classification_head.cls_logits.bias.fill_(-1.0)
        theirs.head.regression_head.bbox_reg.bias.fill_(2.0)
    config = ModelConfig(backbone="resnet50", conventions=PRESET.conventions, **PRESET.model)
    ours = FCOS(config, classes=CLASSES)
    ours.load_state_dict(theirs.state_dict())
    # the same kernels for both: how convolutions round is not under test
    return theirs.eval().to(memory_format=torch.channels_last), ours.eval()


def as_theirs(images: list[npt.NDArray[np.uint8]]) -> list[Tensor]:
    return [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255) for image in images]


def features_of(size: tuple[int, int]) -> list[Tensor]:
    return [torch.empty(1, 1, -(-size[0] // stride), -(-size[1] // stride)) for stride in (8, 16, 32, 64, 128)]


def fused_neighbors(
    before: int, after: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """`geometry._neighbors` with coordinates rounded once, as by a fused multiplication and subtraction."""
    exact = np.float64(np.float32(before / after)) * (np.arange(after) + 0.5) - 0.5
    position = np.maximum(exact.astype(np.float32), np.float32(0))
    first = position.astype(np.int64)
    return first, np.minimum(first + 1, before - 1), position - first.astype(np.float32)


@pytest.mark.parametrize("shapes", GROUPS, ids=str)
def test_resized_sizes_and_pixels(shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Resized pixels match PyTorch's interpolation on this machine.

    Its scalar kernels round coordinates twice, as we do. Vectorized ones may fuse the two operations (2.14 does with
    AVX2; see `ATEN_CPU_CAPABILITY=default`).
    """
    images = pictures(shapes)
    expected, _ = both()[0].transform(as_theirs(images))
    config = both()[1].config
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (config.mean, config.std))
    largest = []
    for neighbors in (geometry_module._neighbors, fused_neighbors):
        monkeypatch.setattr(geometry_module, "_neighbors", neighbors)
        found, geometries = RULE.batch(images)
        assert [geometry.resized[::-1] for geometry in geometries] == expected.image_sizes
        largest.append(float(np.abs((found - mean) / std - expected.tensors.numpy()).max()))
    assert min(largest) < 2e-6
    assert max(largest) < 1e-4  # a coordinate off by one unit in the last place, in noise


@pytest.mark.parametrize("size", [(160, 224), (800, 1088), (800, 1344), (32, 32), (1344, 800), (64, 288)])
def test_points(size: tuple[int, int]) -> None:
    theirs, ours = both()
    features = features_of(size)
    anchors = theirs.anchor_generator(ImageList(torch.empty(1, 3, *size), [size]), features)[0]
    points = ours.points(RawOutputs(features, features, features), input_size=size)
    assert torch.equal(points.xy, (anchors[:, :2] + anchors[:, 2:]) / 2)
    assert torch.equal(points.stride, anchors[:, 2] - anchors[:, 0])


def truths(size: tuple[int, int], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return boxes of all sizes. Half of them have integer coordinates, which can lie exactly on range ends."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([size[1], size[0]]) * 0.8
    sides = 4 + torch.rand(count, 2, generator=generator) ** 2 * torch.tensor([size[1], size[0]])
    boxes = torch.cat((corner, corner + sides), 1)
    boxes[::2] = boxes[::2].round()
    return boxes, torch.randint(0, CLASSES, (count,), generator=generator)


@pytest.mark.parametrize("seed", range(6))
def test_targets_and_losses(seed: int) -> None:
    theirs, ours = both()
    size = [(160, 224), (320, 288), (192, 544), (608, 416), (800, 1088), (64, 96)][seed]
    features = features_of(size)
    counts = [feature.shape[2] * feature.shape[3] for feature in features]
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "cls_logits": torch.randn(2, sum(counts), CLASSES, generator=generator) - 3,
        "bbox_regression": 4 * torch.rand(2, sum(counts), 4, generator=generator),
        "bbox_ctrness": torch.randn(2, sum(counts), 1, generator=generator),
    }
    pairs = [truths(size, 25, seed), truths(size, 0 if seed == 5 else 9, seed + 50)]
    anchors = theirs.anchor_generator(ImageList(torch.empty(2, 3, *size), [size, size]), features)
    seen: list[list[Tensor]] = []
    original = theirs.head.compute_loss

    def watch(targets: Any, head: Any, boxes: Any, matched: list[Tensor]) -> Any:
        seen.append(matched)
        return original(targets, head, boxes, matched)

    theirs.head.compute_loss = watch
    try:
        given = [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]
        expected = theirs.compute_loss(given, outputs, anchors, counts)
    finally:
        theirs.head.compute_loss = original

    def maps(values: Tensor) -> list[Tensor]:
        parts = values.split(counts, dim=1)
        return [
            part.transpose(1, 2).unflatten(2, tuple(feature.shape[2:]))
            for part, feature in zip(parts, features, strict=True)
        ]

    strides = torch.repeat_interleave(torch.tensor([8.0, 16, 32, 64, 128]), torch.tensor(counts))
    raw = RawOutputs(
        maps(outputs["cls_logits"]),
        maps(outputs["bbox_regression"] * strides[:, None]),
        maps(outputs["bbox_ctrness"]),
    )
    boxes, classes = torch.zeros(2, 25, 4), torch.full((2, 25), -1)
    for place, (real, labels) in enumerate(pairs):
        boxes[place, : len(real)], classes[place, : len(real)] = real, labels
    points = ours.points(raw, input_size=size)
    truth = Truth(boxes, classes, torch.zeros_like(classes, dtype=torch.bool))
    targets = assign_targets(points, truth, ranges=ours.config.ranges, conventions=ours.config.conventions)
    assert torch.equal(targets.box, torch.stack(seen[0]))
    found = compute_losses(raw, targets, points)
    names = {"classification": "cls", "bbox_regression": "box", "bbox_ctrness": "centerness"}
    for name, our_name in names.items():
        torch.testing.assert_close(found[our_name], expected[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_postprocessing_is_identical(seed: int) -> None:
    """All boxes, scores and labels are bit-identical. Images are smaller than the padded input."""
    theirs, ours = both()
    size = [(160, 224), (320, 288), (96, 544), (160, 160)][seed]
    sizes = [(size[0] - 3, size[1] - 20), size]
    features = features_of(size)
    generator = torch.Generator().manual_seed(seed)
    raw = RawOutputs([], [], [])
    for feature, stride in zip(features, (8, 16, 32, 64, 128), strict=True):
        shape = feature.shape[2:]
        raw.cls.append(torch.randn(2, CLASSES, *shape, generator=generator) * 2 - 2)
        raw.ltrb.append(torch.rand(2, 4, *shape, generator=generator) * 6 * stride)
        raw.ctr.append(torch.randn(2, 1, *shape, generator=generator) + 1)
    flat = [[level.flatten(2).transpose(1, 2) for level in branch] for branch in raw]
    anchors = theirs.anchor_generator(ImageList(torch.empty(2, 3, *size), sizes), features)
    counts = [feature.shape[2] * feature.shape[3] for feature in features]
    outputs = {
        "cls_logits": flat[0],
        "bbox_regression": [level / stride for level, stride in zip(flat[1], (8, 16, 32, 64, 128), strict=True)],
        "bbox_ctrness": flat[2],
    }
    expected = theirs.postprocess_detections(outputs, [list(a.split(counts)) for a in anchors], sizes)
    found = ours.post_process(raw, height=size[0], width=size[1], sizes=torch.tensor(sizes))
    assert all(len(reference["scores"]) > 20 for reference in expected)
    for place, reference in enumerate(expected):
        count = int(found.counts[place])
        assert torch.equal(found.classes[place, :count], reference["labels"])
        assert torch.equal(found.scores[place, :count], reference["scores"])
        assert torch.equal(found.boxes[place, :count], reference["boxes"])


def artifact_of(config: ModelConfig) -> Artifact:
    table = ClassTable.from_names([f"c{index}" for index in range(CLASSES)])
    return Artifact(both()[1].state_dict(), config, table, RULE.to_json())


@pytest.mark.parametrize("shapes", GROUPS, ids=str)
def test_detections(shapes: list[tuple[int, int]]) -> None:
    """The same normalized pixels through the whole network: boxes (also those without area), labels and order."""
    theirs, ours = both()
    images, _ = theirs.transform(as_theirs(pictures(shapes, seed=1)))
    with torch.no_grad():
        expected = theirs(as_theirs(pictures(shapes, seed=1)))
    artifact = artifact_of(ours.config.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}))
    # the plain network: the rounding of the faster one in `from_artifact` is not tested here
    model = artifact.build().to(memory_format=torch.channels_last)
    plain = PyTorchDetector(model, facts_of(artifact), name="plain", device=torch.device("cpu"))
    geometries = [RULE.geometry(*shape) for shape in shapes]
    found = detect_batch(plain, images.tensors.numpy(), geometries)
    assert any(len(reference) for reference in found)
    for result, reference, (width, height) in zip(found, expected, shapes, strict=True):
        assert result.classes.tolist() == reference["labels"].tolist()
        np.testing.assert_allclose(result.scores, reference["scores"].numpy(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.boxes, reference["boxes"].numpy(), rtol=0, atol=1e-5 * max(width, height))


@pytest.mark.parametrize("shapes", GROUPS, ids=str)
def test_detections_from_images(shapes: list[tuple[int, int]]) -> None:
    """uint8 images through the detector that `predict` and `eval` use.

    torchvision normalizes before it resizes and therefore rounds differently: scores within 5e-6 may change places.
    """
    theirs, ours = both()
    images = pictures(shapes, seed=1)
    with torch.no_grad():
        expected = theirs(as_theirs(images))
    detector = PyTorchDetector.from_artifact(artifact_of(ours.config), name="torchvision", device="cpu")
    found = detect_batch(detector, *RULE.batch(images))
    for result, reference, shape in zip(found, expected, shapes, strict=True):
        scores, boxes, labels = (reference[key].numpy() for key in ("scores", "boxes", "labels"))
        np.testing.assert_allclose(result.scores, scores, rtol=0, atol=5e-6)
        near = (np.abs(result.scores[:, None] - scores) < 5e-6) & (result.classes[:, None] == labels)
        near &= np.abs(result.boxes[:, None] - boxes).max(2, initial=0) < 1e-4 * max(shape)
        # the last detections may be replaced by tied ones
        assert near.any(1)[:-2].all()


@pytest.mark.parametrize("shapes", GROUPS[:3], ids=str)
def test_raw_outputs(shapes: list[tuple[int, int]]) -> None:
    theirs, ours = both()
    images, _ = theirs.transform(as_theirs(pictures(shapes, seed=2)))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (ours.config.mean, ours.config.std))
    with torch.no_grad():
        head = theirs.head(list(theirs.backbone(images.tensors).values()))
        raw = ours(images.tensors * std + mean)
    cls, ltrb, ctr = raw.flat()
    strides = ours.points(raw, input_size=tuple(images.tensors.shape[-2:])).stride[:, None]
    for output, expected in (
        (cls, head["cls_logits"]),
        (ltrb, head["bbox_regression"] * strides),
        (ctr, head["bbox_ctrness"][..., 0]),
    ):
        assert float((output - expected).norm() / expected.norm()) < 1e-5


def test_zero_area_boxes_are_kept_only_by_the_torchvision_preset() -> None:
    raw = RawDetections(
        np.array([[[5, 5, 5, 9], [1, 1, 4, 4]]], np.float32), np.array([[0.9, 0.8]], np.float32),
        np.array([[0, 1]]), np.array([2]),
    )  # fmt: skip
    geometry = RULE.geometry(100, 100)
    assert len(to_source(raw, [geometry], PRESET.conventions)[0]) == 2
    assert len(to_source(raw, [geometry])[0]) == 1
