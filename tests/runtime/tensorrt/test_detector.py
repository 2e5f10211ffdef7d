"""The TensorRT detector with a stand-in for TensorRT; tests/export/tensorrt runs the real one on a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcos_cli.errors import FcosError, MissingExtra, ModelError, UsageError
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.runtime.headers import sidecar_path
from fcos_cli.runtime.tensorrt import package
from fcos_cli.runtime.tensorrt.detector import TensorRtDetector
from fcos_cli.runtime.tensorrt.sidecar import EngineRecord, Shape, read_sidecar, write_sidecar
from tests.small_onnx import write_onnx
from tests.tensorrt_stand_in import OUTPUTS, DataType, LayerType, StandInGpu, World, build_engine, install

pytest.importorskip("onnx")

PROFILE = Profile(Shape(1, 32, 64), Shape(2, 64, 64), Shape(4, 96, 128))


@pytest.fixture
def gpu() -> StandInGpu:
    return StandInGpu()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, gpu: StandInGpu) -> World:
    return install(monkeypatch, "trt", "11.4.0.9", gpu=gpu)


@pytest.fixture
def engine(tmp_path: Path, world: World) -> Path:
    onnx_file = write_onnx(tmp_path / "m.onnx", score_threshold=0.25)
    build_engine(onnx_file, tmp_path / "m.engine", flavour="trt", profile=PROFILE)
    return tmp_path / "m.engine"


def images_of(*reds: int, height: int = 64, width: int = 64) -> Any:
    images = np.zeros((len(reds), 3, height, width), np.uint8)
    images[:, 0, 0, 0] = reds
    return images


def change(engine: Path, **record: Any) -> None:
    """Overwrite the JSON file beside `engine` with a changed record."""
    facts, known = read_sidecar(engine)
    write_sidecar(engine, facts, replace(known, **record))


def test_detections_and_properties(engine: Path) -> None:
    detector = TensorRtDetector.open(engine, name="the engine")
    assert (detector.name, detector.backend, detector.precision, detector.device) == (
        "the engine",
        "tensorrt",
        "fp32",
        "cpu",  # the stand-in's
    )
    assert detector.facts.classes.names == ("a", "b", "c")
    result = detector(images_of(128, height=32, width=96))
    assert result.boxes[0].tolist() == [[0, 0, 96, 32], [0, 0, 96, 32], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(result.scores, [[0.75, 0.5, 0, 0]])
    assert result.classes.tolist() == [[0, 1, -1, -1]]
    assert result.counts.tolist() == [2]
    assert (result.classes.dtype, result.counts.dtype) == (np.int64, np.int64)


def test_a_large_batch_is_split(engine: Path, world: World) -> None:
    result = TensorRtDetector.open(engine, name="e")(images_of(*range(11)))
    assert world.executed == [(4, 3, 64, 64), (4, 3, 64, 64), (3, 3, 64, 64)]
    np.testing.assert_allclose(result.scores[:, 1], np.arange(11) / 256)


def test_a_fixed_batch_is_padded(tmp_path: Path, world: World) -> None:
    onnx_file = write_onnx(tmp_path / "m.onnx", free=False, batch=4)
    build_engine(onnx_file, tmp_path / "m.engine", flavour="trt")
    result = TensorRtDetector.open(tmp_path / "m.engine", name="e")(images_of(1, 2, 3, 4, 5))
    assert world.executed == [(4, 3, 64, 64)] * 2
    np.testing.assert_allclose(result.scores[:, 1], np.arange(1, 6) / 256)


def test_read_only_images_are_accepted(engine: Path) -> None:
    images = images_of(64)
    images.flags.writeable = False
    assert TensorRtDetector.open(engine, name="e")(images).counts.tolist() == [2]


@pytest.mark.parametrize(("height", "width"), [(96, 160), (16, 64), (128, 128)])
def test_sizes_outside_of_the_profile_are_rejected(engine: Path, height: int, width: int) -> None:
    with pytest.raises(ModelError, match=f"32 to 96 x 64 to 128 pixels .* not {height} x {width}"):
        TensorRtDetector.open(engine, name="e")(images_of(1, height=height, width=width))


def test_memory_grows_to_the_largest_call_and_is_reused(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, taken, empty = TensorRtDetector.open(engine, name="e"), [], torch.empty

    def counting_empty(*args: Any, **named: Any) -> torch.Tensor:
        taken.append(args)
        return empty(*args, **named)

    monkeypatch.setattr(torch, "empty", counting_empty)
    first = detector(images_of(10, 20, 30, 40, height=96, width=128))
    assert len(taken) == 5, "input and four outputs"
    second = detector(images_of(50, height=32))
    detector(images_of(60, 70, height=96, width=128))
    assert len(taken) == 5
    np.testing.assert_allclose(first.scores[:, 1] * 256, [10, 20, 30, 40])  # not overwritten by later calls
    np.testing.assert_allclose(second.scores[:, 1] * 256, [50])


def test_int32_classes_become_int64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = OUTPUTS | {"classes": DataType.INT32, "counts": DataType.INT32}
    install(monkeypatch, "trt", "10.0.1", gpu=StandInGpu(), outputs=narrow)
    build_engine(write_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", flavour="trt")
    result = TensorRtDetector.open(tmp_path / "m.engine", name="e")(images_of(1))
    assert (result.classes.dtype, result.counts.dtype) == (np.int64, np.int64)
    assert result.classes[0, :2].tolist() == [0, 1]


def test_nms_that_does_not_converge_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = OUTPUTS | {"converged": DataType.BOOL}
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu(), outputs=outputs, unconverged=99)
    build_engine(write_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", flavour="trt-rtx")
    detector = TensorRtDetector.open(tmp_path / "m.engine", name="e")
    assert detector(images_of(1, 2)).counts.tolist() == [2, 2]
    with pytest.raises(FcosError, match="chain"):
        detector(images_of(1, 99))


def test_scores_above_and_below_the_threshold_of_the_file(engine: Path) -> None:
    result = TensorRtDetector.open(engine, name="e", score=0.5)(images_of(64, 192))
    assert result.counts.tolist() == [1, 2]
    with pytest.raises(UsageError, match=r"drops detections below 0\.25"):
        TensorRtDetector.open(engine, name="e", score=0.1)


def test_an_execution_that_fails(engine: Path, world: World) -> None:
    detector = TensorRtDetector.open(engine, name="e")
    world.fails = True
    with pytest.raises(FcosError, match="TensorRT failed on 2 images of 64 x 64"):
        detector(images_of(1, 2))


@pytest.mark.parametrize(("flavour", "strategy"), [("trt", None), ("trt-rtx", "EAGER")])
def test_kernels_for_a_shape_are_compiled_before_its_first_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: Any, strategy: str | None
) -> None:
    world = install(monkeypatch, flavour, "10.1", gpu=StandInGpu())
    build_engine(write_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", flavour=flavour)
    TensorRtDetector.open(tmp_path / "m.engine", name="e")
    config = world.contexts[-1]
    assert (config and config.dynamic_shapes_kernel_specialization_strategy.name) == strategy


# What is checked before an engine is loaded


def test_an_engine_without_its_json_file_is_rejected(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(ModelError, match="JSON file that describes this model is missing"):
        TensorRtDetector.open(engine, name="e")


def test_a_json_file_of_another_engine(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes() + b" ")
    with pytest.raises(ModelError, match="belongs to another one"):
        TensorRtDetector.open(engine, name="e")


@pytest.mark.parametrize("lost", ["version", "min", "flavour"])
def test_an_incomplete_json_file(engine: Path, lost: str) -> None:
    import json

    content = json.loads(sidecar_path(engine).read_text())
    del content["engine"][lost]
    content["engine"]["key of a later version"] = 1
    sidecar_path(engine).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=f"'{lost}' is missing"):
        TensorRtDetector.open(engine, name="e")


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("11.4.0.9", "11.4.0.9", True),
        ("11.4.0.9", "11.4.0", True),  # some packages report three numbers
        ("11.4.0.9", "11.4.1", False),
        ("10.13.2.6", "11.4.0", False),
        ("11.4.0", "11.5.0", False),
    ],
)
def test_an_engine_runs_only_on_the_version_that_built_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, here: str, runs: bool
) -> None:
    gpu, path = StandInGpu(), tmp_path / "m.engine"
    install(monkeypatch, "trt", built, gpu=gpu)
    build_engine(write_onnx(tmp_path / "m.onnx"), path, flavour="trt")
    world = install(monkeypatch, "trt", here, gpu=gpu)
    if runs:
        world.version = built  # the library behind the package's shorter version
        assert TensorRtDetector.open(path, name="e")(images_of(1)).counts.tolist() == [2]
        return
    with pytest.raises(ModelError, match=f"built by TensorRT {built} .*; this machine has {here}") as caught:
        TensorRtDetector.open(path, name="e")
    assert "install tensorrt" in str(caught.value.remedy)


def test_a_flavour_that_is_not_installed(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu())
    with pytest.raises(MissingExtra, match="TensorRT cannot be used here") as caught:
        TensorRtDetector.open(engine, name="e")
    assert "fcos-cli[trt]" in str(caught.value.remedy)


def test_without_a_gpu(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "trt", "11.4.0.9", gpu=None)
    with pytest.raises(ModelError, match="needs an NVIDIA GPU") as caught:
        TensorRtDetector.open(engine, name="e")
    assert ".onnx" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("flavour", "requested", "gpu", "runs"),
    [
        ("trt", (), (8, 9), True),
        ("trt", (), (8, 6), False),
        ("trt-rtx", (), (8, 6), True),
        ("trt-rtx", (), (10, 0), True),  # newer than this version: TensorRT-RTX compiles for it
        ("trt-rtx", (), (7, 5), False),
        ("trt-rtx", ("7.5", "8.6"), (8, 6), True),
        ("trt-rtx", ("7.5", "8.6"), (8, 9), False),
        ("trt-rtx", ("current",), (8, 9), True),
        ("trt-rtx", ("current",), (8, 6), False),
    ],
)
def test_an_engine_runs_only_on_the_gpus_it_was_built_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flavour: str,
    requested: tuple[str, ...],
    gpu: tuple[int, int],
    runs: bool,
) -> None:
    path = tmp_path / "m.engine"
    install(monkeypatch, flavour, "11.4.0", gpu=StandInGpu((8, 9)))
    build_engine(write_onnx(tmp_path / "m.onnx"), path, flavour=flavour, compute_capabilities=requested)
    install(monkeypatch, flavour, "11.4.0", gpu=StandInGpu(gpu, "NVIDIA Test 2"))
    if runs:
        assert TensorRtDetector.open(path, name="e")(images_of(1)).counts.tolist() == [2]
        return
    with pytest.raises(ModelError, match=f"the engine was built for .*NVIDIA Test 2 has {gpu[0]}.{gpu[1]}") as caught:
        TensorRtDetector.open(path, name="e")
    assert "export it again" in str(caught.value.remedy)
    assert ("--format trt or the .onnx" in str(caught.value.remedy)) == (flavour == "trt-rtx")


def test_an_engine_that_cannot_be_loaded_reports_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu())
    path = tmp_path / "m.engine"
    build_engine(write_onnx(tmp_path / "m.onnx"), path, flavour="trt-rtx")
    path.write_bytes(b"no plan")
    change(path, engine_sha256=hashlib.sha256(b"no plan").hexdigest())
    with pytest.raises(ModelError, match="malformed engine: Version tag does not match"):
        TensorRtDetector.open(path, name="e")


def test_an_engine_with_other_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = install(monkeypatch, "trt", "11.4.0", gpu=StandInGpu())
    build_engine(write_onnx(tmp_path / "m.onnx"), tmp_path / "m.engine", flavour="trt")
    world.outputs = {"boxes": DataType.FLOAT, "labels": DataType.INT64}
    with pytest.raises(ModelError, match="maps images to boxes, labels"):
        TensorRtDetector.open(tmp_path / "m.engine", name="e")


# Precision


def test_the_precision_of_an_engine_built_elsewhere_is_read_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = ((LayerType.CONVOLUTION, DataType.HALF),) * 3 + ((LayerType.TOPK, DataType.FLOAT),)
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=None, layers=half)
    path = tmp_path / "m.engine"
    record = build_engine(write_onnx(tmp_path / "m.onnx", precision="fp16"), path, flavour="trt-rtx")
    assert (record.layers, record.precision_used) == (None, "fp16")
    assert "without a GPU" in str(record.unread)
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu(), layers=half)
    opened = TensorRtDetector.open(path, name="e")
    assert opened.record.body == {"fp16": 3}
    assert opened.record.layers == {"fp16": 3, "fp32": 1}
    assert opened.precision == "fp16"


def test_layers_of_unknown_precision_are_those_of_the_network(engine: Path) -> None:
    _, record = read_sidecar(engine)
    read = replace(record, precision="fp16", network={"fp16": 9}, body={"other": 7, "fp32": 2})
    assert read.precision_used == "fp16"


@pytest.mark.parametrize(
    ("requested", "body", "used"),
    [
        ("fp32", {"fp32": 9}, "fp32"),
        ("fp16", {"fp16": 8, "fp32": 1}, "fp16"),
        ("fp16", {"fp16": 1, "fp32": 8}, "fp32"),
        ("int8", {"int8": 5, "fp32": 5}, "int8"),
        ("int8", {"int8": 4, "fp32": 3, "fp16": 3}, "mixed"),
        ("fp16", {}, "fp16"),
    ],
)
def test_precision_used(engine: Path, requested: str, body: dict[str, int], used: str) -> None:
    _, record = read_sidecar(engine)
    assert replace(record, precision=requested, network={}, body=body or None).precision_used == used


def test_the_record_survives_a_round_trip(engine: Path) -> None:
    _, record = read_sidecar(engine)
    assert EngineRecord.from_json(record.to_json(), where=engine) == record


# Devices


def test_a_device_that_is_not_a_gpu() -> None:
    with pytest.raises(UsageError, match="not on 'cpu'"):
        package.find_gpu("cpu")


@pytest.mark.parametrize("flavour", ["trt", "trt-rtx"])
def test_without_torch_the_extra_is_that_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, flavour: package.Flavour
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra) as caught:
        package.find_gpu(flavour=flavour)
    assert caught.value.remedy == f'pip install "fcos-cli[{flavour}]"'


def test_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert package.find_gpu("cuda:3") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="cuda:0 to cuda:1"):
        package.find_gpu("cuda:2")
