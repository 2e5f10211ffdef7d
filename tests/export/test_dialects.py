"""Exports of dialects pass the parity check and match PyTorch on images of different sizes in one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fcos_cli.export import run
from fcos_cli.export.options import make_options
from fcos_cli.model.artifact import Artifact, save
from fcos_cli.model.presets import PRESETS
from fcos_cli.runtime.detector import detect_batch
from fcos_cli.runtime.open import open_detector
from tests.tiny import CLASSES, tiny_model

pytestmark = pytest.mark.slow

NAMES = ("torchvision", "fcos-v1", "adelaidet", "mmdet-base")
"""Together these cover every convention that changes the graph; the other dialects are combinations of them."""


def artifact_of(name: str) -> Artifact:
    """The tiny network with the dialect's conventions, input and thresholds. It has many well-spread detections."""
    preset = PRESETS[name]
    kept = ("mean", "std", "nms_iou")
    model = tiny_model(conventions=preset.conventions, score_threshold=0.1, **{key: preset.model[key] for key in kept})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for branch, std, bias in (("cls_logits", 0.5, -1.0), ("bbox_reg", 0.1, 3.0), ("bbox_ctrness", 0.3, 1.0)):
            head = model.head.classification_head if branch == "cls_logits" else model.head.regression_head
            layer = getattr(head, branch)
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * std)
            layer.bias.fill_(bias)
    geometry = {**preset.geometry, "size": [160, 256]}
    return Artifact(model.state_dict(), model.config, CLASSES, geometry, threshold=0.3)


def export(name: str, folder: Path, format_: str) -> tuple[Path, Path]:
    weights = folder / "dialect.safetensors"
    save(weights, artifact_of(name))
    options = make_options(format_)
    out = run.default_out(weights, options)
    exported = run.export(weights, run.ExportJob(options, out))
    assert exported.facts.verified is True
    return weights, exported.path


@pytest.mark.parametrize("name", NAMES)
def test_onnx(name: str, tmp_path: Path) -> None:
    weights, path = export(name, tmp_path, "onnx")
    assert_matches_pytorch(weights, path, "onnxruntime")


def test_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    weights, path = export("torchvision", tmp_path, "openvino")
    assert_matches_pytorch(weights, path, "openvino")


def assert_matches_pytorch(weights: Path, path: Path, backend: str) -> None:
    reference, exported = open_detector(weights, device="cpu"), open_detector(path)
    assert exported.backend == backend
    assert exported.facts.conventions == reference.facts.conventions
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for w, h in ((100, 75), (60, 90), (160, 150))]
    batch = reference.facts.resize.batch(pictures)
    for expected, actual in zip(detect_batch(reference, *batch), detect_batch(exported, *batch), strict=True):
        assert len(expected) > 5
        assert actual.classes.tolist() == expected.classes.tolist()
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(actual.boxes, expected.boxes, atol=0.05)
