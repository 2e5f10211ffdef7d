"""Subgraphs behave like the file they come from, and a file that cannot be cut says why."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fcos_cli.errors import ModelError
from fcos_cli.model.config import STRIDES
from fcos_cli.parity.subgraphs import ExportedModel, NoSubgraph, OnnxModel, OpaqueModel, OpenVinoModel, to_output
from fcos_cli.runtime.exported import InputLimits
from fcos_cli.runtime.tensorrt.sidecar import Shape as Box
from tests.parity.toy import RAW, write_toy
from tests.runtime.fakes import CornerDetector

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def open_model(backend: str, path: Path) -> ExportedModel:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
        return OpenVinoModel(path, strides=STRIDES)
    return OnnxModel(path, strides=STRIDES)


backends = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])


@backends
def test_a_file_is_split_into_raw_outputs_and_post_processing(backend: str, tmp_path: Path) -> None:
    model = open_model(backend, write_toy(tmp_path / "toy.onnx"))
    assert model.backend == backend
    assert model.shape == (None, None, None)
    images = np.full((2, 3, 8, 12), 100, np.uint8)
    images[1] = 50
    raw = model.raw(images)
    assert tuple(raw) == RAW
    assert raw["ltrb_p4"].shape == (2, 4, 8, 12)
    assert raw["ctr_p7"].dtype == np.float32
    # the place of ctr_p7 is 14, its weights 0.015: 3 channels of 100
    assert raw["ctr_p7"][:, 0, 0, 0].tolist() == pytest.approx([4.5, 2.25])

    whole, post = model.detect(images), model.post(raw, np.zeros_like(images))
    for left, right in zip(whole.detections, post.detections, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)
    assert whole.converged is None
    # levels 5 … 9 of ltrb: weights 0.006 … 0.010
    assert whole.detections.boxes[:, 0, 1].tolist() == pytest.approx([2.4, 1.2])


@backends
def test_post_processing_reads_the_raw_outputs_and_only_the_shape_of_the_images(backend: str, tmp_path: Path) -> None:
    model = open_model(backend, write_toy(tmp_path / "toy.onnx"))
    raw = model.raw(np.full((1, 3, 8, 8), 100, np.uint8))
    raw["ctr_p3"] += 5
    found = model.post(raw, np.zeros((1, 3, 8, 96), np.uint8)).detections
    assert found.boxes[0, 0].tolist() == pytest.approx([96, 2.4, 0.9, 3.9 + 1], rel=1e-5)
    assert (found.classes.dtype, found.counts.dtype) == (np.int64, np.int64)


@backends
def test_fixed_dimensions_are_reported(backend: str, tmp_path: Path) -> None:
    assert open_model(backend, write_toy(tmp_path / "toy.onnx", batch=4, height=16)).shape == (4, 16, None)


@backends
def test_a_file_without_the_tensor_names_cannot_be_split_but_runs(backend: str, tmp_path: Path) -> None:
    model = open_model(backend, write_toy(tmp_path / "toy.onnx", lose="ltrb_p5"))
    images = np.full((1, 3, 8, 8), 100, np.uint8)
    assert model.detect(images).detections.counts.tolist() == [1]
    with pytest.raises(NoSubgraph, match="no tensors named ltrb_p5"):
        model.raw(images)
    with pytest.raises(NoSubgraph, match="no tensors named ltrb_p5"):
        model.post(dict.fromkeys(RAW, np.zeros((1, 1, 8, 8), np.float32)), images)


@backends
def test_post_processing_that_reads_past_the_raw_outputs_is_refused(backend: str, tmp_path: Path) -> None:
    model = open_model(backend, write_toy(tmp_path / "toy.onnx", leak=True))
    images = np.full((1, 3, 8, 8), 100, np.uint8)
    with pytest.raises(NoSubgraph, match="more of the network than its raw outputs"):
        model.post(model.raw(images), images)


@backends
def test_an_invalid_file_is_a_model_error(backend: str, tmp_path: Path) -> None:
    (tmp_path / "toy.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"cannot load|cannot read"):
        open_model(backend, tmp_path / "toy.onnx")


def test_an_opaque_model_has_no_subgraphs() -> None:
    model = OpaqueModel(CornerDetector())
    images = np.zeros((3, 3, 32, 32), np.uint8)
    assert (model.backend, model.shape, model.span) == ("numpy", (None, None, None), None)
    assert model.detect(images).detections.counts.tolist() == [2, 2, 2]
    with pytest.raises(NoSubgraph):
        model.raw(images)
    with pytest.raises(NoSubgraph):
        model.post({}, images)


def test_an_engine_reports_its_sizes() -> None:
    engine = CornerDetector()
    engine.limits = InputLimits(1, 8, None, 320)  # type: ignore[attr-defined]
    engine.record = SimpleNamespace(min=Box(1, 160, 320), max=Box(8, 640, 320))  # type: ignore[attr-defined]
    model = OpaqueModel(engine)
    assert (model.shape, model.span) == ((None, None, 320), ((160, 320), (640, 320)))


def test_outputs_are_converted_to_the_documented_dtypes() -> None:
    found = to_output(
        {
            "boxes": np.zeros((1, 2, 4), np.float16),
            "scores": np.zeros((1, 2), np.float32),
            "classes": np.zeros((1, 2), np.int32),
            "counts": np.zeros(1, np.int32),
            "converged": np.array([1], np.uint8),
        }
    )
    kinds = [part.dtype for part in found.detections]
    assert kinds == [np.float32, np.float32, np.int64, np.int64]
    assert found.converged is not None
    assert found.converged.tolist() == [True]
