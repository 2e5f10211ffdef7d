from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import Header, read_header
from fcos_cli.runtime.info import print_info, to_json
from tests.runtime.onnx_files import FACTS, write_onnx

KEYS = [
    "file", "format", "bytes", "parameters", "macs", "speed", "precision", "winograd", "verified", "classes",
    "geometry", "threshold", "class_thresholds", "promises", "limits", "model", "preset", "conventions", "engine",
    "provenance",
]  # fmt: skip


def test_the_document_has_the_same_keys_for_every_kind_of_file(tmp_path, model_file):
    path = write_onnx(tmp_path / "m.onnx")
    exported, weights = (to_json(read_header(file), path=file) for file in (path, model_file))
    assert list(exported) == list(weights) == KEYS
    assert (exported["format"], exported["parameters"], exported["verified"]) == ("onnx", None, None)
    assert (weights["format"], weights["precision"]) == ("safetensors", "fp32")
    assert exported["limits"] == {"score": 0.05, "nms_iou": 0.6, "max_detections": 100}
    assert ResizeRule.from_json(exported["geometry"]) == ResizeRule("letterbox", (32, 48))
    assert exported["classes"][1] == {"id": 20, "name": "b"}
    assert (exported["preset"], weights["preset"]) == ("default", "default")


def test_programs_get_one_json_document(tmp_path, capsys):
    path = write_onnx(tmp_path / "m.onnx")
    print_info(read_header(path), path=path, as_json=True)
    out, err = capsys.readouterr()
    assert (json.loads(out)["schema_version"], err) == (1, "")


@pytest.mark.parametrize(
    ("verified", "text"),
    [(None, "fp16)"), (True, "fp16, verified against PyTorch)"), (False, "fp16, not verified)")],
)
def test_people_are_told_of_the_proof(capsys, verified, text):
    facts = replace(FACTS, precision="fp16", verified=verified)
    print_info(Header(facts, 2_500_000), path=Path("m.onnx"), as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"m.onnx (2.5 MB, {text}" in err


def test_people_see_classes_with_their_thresholds_and_the_builders_facts(capsys):
    facts = replace(FACTS, class_thresholds=(0.1, 0.25, 0.5))
    print_info(Header(facts, 1, engine={"version": "10.3", "gpu": None}), path=Path("m.engine"), as_json=False)
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["b", "20", "0.250"] in lines
    assert ["engine.version", "10.3"] in lines
    assert ["limits.nms_iou", "0.6"] in lines
    assert ["geometry.size", "[32,", "48]"] in lines


def test_a_file_says_what_its_network_costs(tmp_path, capsys):
    facts = replace(FACTS, provenance={"cost": {"parameters": 3_860_000, "macs": 1_797_775_040}})
    header, path = read_header(write_onnx(tmp_path / "m.onnx", facts=facts)), tmp_path / "m.onnx"
    document = to_json(header, path=path)
    assert (document["parameters"], document["macs"]) == (3_860_000, 1_797_775_040)
    print_info(header, path=path, as_json=False)
    said = capsys.readouterr().err
    assert "3.86 M parameters" in said
    assert "1.80 G multiplications (MACs) per image" in said


def test_a_file_in_winograds_form_says_so_and_older_files_have_none(tmp_path, capsys):
    path = write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, winograd=40, verified=True))
    header = read_header(path)
    print_info(header, path=path, as_json=False)
    assert "fp32, 40 Winograd convolutions, verified" in capsys.readouterr().err
    metadata = header.facts.to_metadata()
    del metadata["winograd"]
    assert Facts.from_metadata(metadata, where=path).winograd == 0
