"""Export options: parsing the command line, and the facts of the exported model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.export.options import ExportOptions, make_options
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.export.tensorrt.settings import engine_settings
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.presets import PRESETS
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.tensorrt.sidecar import Shape

FACTS = Facts(ClassTable.from_names(["cat"]), ResizeRule("shortest", (800, 1333), pad_value=7))


def test_defaults_keep_the_facts_of_the_model() -> None:
    assert ExportOptions().apply(FACTS) == Facts(**{**vars(FACTS), "verified": False})


def test_a_fixed_size_becomes_a_letterbox_and_limits_are_overridden() -> None:
    options = ExportOptions(size=(320, 416), score=0.2, iou=0.5, max_detections=7, precision="fp16")
    facts = options.apply(FACTS)
    assert facts.resize == ResizeRule("letterbox", (320, 416), pad_value=7)
    assert (facts.score_threshold, facts.nms_iou, facts.max_detections, facts.precision) == (0.2, 0.5, 7, "fp16")


def test_the_format_determines_the_form_of_nms_and_the_int8_target() -> None:
    forms = {name: make_options(name) for name in ("onnx", "openvino", "trt", "trt-rtx")}
    assert {name: options.nms for name, options in forms.items()} == {
        "onnx": "op", "openvino": "op", "trt": "op", "trt-rtx": "tensor",
    }  # fmt: skip
    many = {name: options.for_candidates(5001).nms for name, options in forms.items()}
    assert many == {"onnx": "op", "openvino": "op", "trt": "tensor", "trt-rtx": "tensor"}
    assert forms["trt"].for_candidates(5000) == forms["trt"]
    assert [forms[name].target for name in forms] == ["cpu", "cpu", "tensorrt", "tensorrt"]
    assert make_options("onnx", precision="int8", target="tensorrt").target == "tensorrt"


@pytest.mark.parametrize(
    ("changes", "flag"), [({"score": 1.5}, "--score"), ({"iou": -0.1}, "--iou"), ({"max_detections": 0}, "--max-det")]
)
def test_limits_outside_of_their_range_are_an_error(changes: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        ExportOptions(**changes)


def test_winograd_is_for_float32_on_cpus() -> None:
    assert [make_options(name).winograd for name in ("onnx", "openvino", "trt", "trt-rtx")] == [
        True,
        True,
        False,
        False,
    ]
    assert not make_options("onnx", precision="int8").winograd
    assert not make_options("openvino", winograd=False).winograd
    with pytest.raises(UsageError, match="float32 on CPUs, not for fp32 in trt"):
        make_options("trt", winograd=True)
    with pytest.raises(UsageError, match="not for fp16 in onnx"):
        make_options("onnx", precision="fp16", winograd=True)


def test_the_command_line_has_all_options_of_an_engine() -> None:
    options = make_options(
        "trt", precision="int8", size=(320, 416), batch="4", score=0.25, iou=0.5, max_detections=7, target="tensorrt"
    )
    rest = {"out": Path("e.engine"), "data": Path("data"), "limit": 9}
    assert options.command(Path("my run/best.safetensors"), **rest) == (
        "fcos export 'my run/best.safetensors' --format trt --precision int8 --size 320x416 --batch 4 --score 0.25 "
        "--iou 0.5 --max-detections 7 --target tensorrt --data data --limit 9 --out e.engine"
    )
    assert make_options("trt-rtx").command(Path("w"), out=Path("w.engine"), data=None, limit=None) == (
        "fcos export w --format trt-rtx --precision fp32 --out w.engine"
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"format_": "tflite"}, "--format 'tflite'"),
        ({"precision": "int4"}, "--precision 'int4'"),
        ({"batch": "many"}, "--batch 'many'"),
        ({"batch": "0"}, "--batch '0'"),
        ({"size": (16, 320)}, "--size 16x320"),
        ({"target": "phone", "precision": "int8"}, "--target 'phone'"),
        ({"format_": "trt", "precision": "int8", "target": "cpu"}, "--target cpu"),
        ({"format_": "trt-rtx", "precision": "int8", "target": "cpu"}, "--target cpu"),
        ({"target": "tensorrt"}, "int8 is quantized for; this export is in fp32"),
    ],
    ids=str,
)
def test_invalid_options_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        make_options(**{"format_": "onnx", **arguments})  # type: ignore[arg-type]


def test_engine_settings() -> None:
    assert engine_settings([]) == {}
    assert engine_settings(
        ["min=1x160x160", "max=8x640x640", "opt=1x320X320", "workspace=512", "cache=t.bin", "sm=8.6,8.9"]
    ) == {
        "profile": Profile(Shape(1, 160, 160), Shape(1, 320, 320), Shape(8, 640, 640)),
        "workspace_mb": 512,
        "timing_cache": Path("t.bin"),
        "compute_capabilities": ["8.6", "8.9"],
    }


@pytest.mark.parametrize(
    "assignment", ["opt=1x320x320", "min", "size=3", "workspace=big", "min=320x320", "cache="], ids=str
)
def test_invalid_engine_settings_are_named(assignment: str) -> None:
    with pytest.raises(UsageError, match="--engine"):
        engine_settings([assignment])


def test_a_score_threshold_is_rejected_if_candidates_are_filtered_by_class_probability() -> None:
    facts = replace(FACTS, conventions=PRESETS["mmdet-tricks"].conventions)
    with pytest.raises(UsageError, match="class probability") as caught:
        make_options("onnx", score=0.3).apply(facts)
    assert "predict" in str(caught.value.remedy)
    assert make_options("onnx").apply(facts).score_threshold == facts.score_threshold
