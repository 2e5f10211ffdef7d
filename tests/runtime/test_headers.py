from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import load
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.pytorch import facts_of
from tests.runtime.onnx_files import FACTS, write_onnx

FULL = replace(
    FACTS,
    classes=ClassTable(("Käse", 'a "quoted" <b> & c', "猫"), (3, 2, 1)),
    class_thresholds=(0.1, 0.2, 0.3),
    precision="int8",
    verified=True,
    model={"backbone": "test_efficientnet"},
    provenance={"date": "2026-11-23", "metrics": {"AP": 0.5}},
)
WEIGHTLESS = "<net><layers/>{rt_info}</net>"


def engine_files(path, content) -> None:
    path.write_bytes(b"a plan")
    path.with_name(path.name + ".json").write_text(content if isinstance(content, str) else json.dumps(content))


def xml_files(path, metadata) -> None:
    from xml.sax.saxutils import quoteattr

    entries = "".join(f"<{key} value={quoteattr(value)}/>" for key, value in metadata.items())
    path.write_text(WEIGHTLESS.format(rt_info=f"<rt_info><fcos>{entries}</fcos></rt_info>"), encoding="utf-8")
    path.with_suffix(".bin").write_bytes(b"1234")


# ---------------------------------------------------------------- ONNX


def test_the_facts_of_an_onnx_file_are_those_that_onnx_runtime_reads(tmp_path):
    import onnxruntime

    path = write_onnx(tmp_path / "m.onnx", facts=FULL)
    assert read_header(path) == (FULL, path.stat().st_size, None, None)
    read = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert read == FULL.to_metadata()


def test_an_onnx_file_cut_off_anywhere_is_an_error_that_names_it(tmp_path):
    whole = write_onnx(tmp_path / "m.onnx").read_bytes()
    path = tmp_path / "part.onnx"
    for length in range(0, whole.rindex(b"verified"), 5):  # after it, only what is for people: model and provenance
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            read_header(path)
        assert caught.value.where == str(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60))
def test_bytes_that_are_no_model_are_an_error_and_nothing_else(tmp_path, content):
    for suffix in (".onnx", ".safetensors"):
        (tmp_path / f"x{suffix}").write_bytes(content)
        with pytest.raises(ModelError):
            read_header(tmp_path / f"x{suffix}")


def test_an_onnx_file_of_somebody_else_is_told_as_such(tmp_path):
    with pytest.raises(ModelError, match="lacks the fact") as caught:
        read_header(write_onnx(tmp_path / "m.onnx", facts=None))
    assert "fcos export" in caught.value.remedy


# ---------------------------------------------------------------- .safetensors


def test_the_facts_of_weights_are_those_of_the_detector_that_runs_them(model_file):
    header = read_header(model_file)
    artifact = load(model_file)
    assert header.facts == facts_of(artifact)
    assert header.parameters == sum(weight.numel() for weight in artifact.weights.values())
    assert header.bytes == model_file.stat().st_size


def test_weights_cut_off_are_an_error(model_file, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(model_file.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"not a readable \.safetensors"):
        read_header(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"[1]",
        b'{"w": 3}',
        b'{"w": {"shape": [2]}}',
        b'{"w": {"shape": [2], "data_offsets": [0]}}',
        b'{"w": {}',
        b"\xff",
    ],
)
def test_weights_with_an_invalid_header_are_an_error(tmp_path, header):
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match=r"not a readable \.safetensors"):
        read_header(tmp_path / "m.safetensors")


@pytest.mark.parametrize("metadata", ["[]", '"x"', '{"model": 5}', '{"model": []}'])
def test_weights_with_invalid_metadata_are_an_error(tmp_path, metadata):
    header = f'{{"__metadata__": {metadata}}}'.encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError):
        read_header(tmp_path / "m.safetensors")


def test_weights_of_somebody_else_are_told_as_such(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks the fact"):
        read_header(tmp_path / "m.safetensors")
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "m.safetensors", metadata={"model": "[1"})
    with pytest.raises(ModelError, match="is invalid"):
        read_header(tmp_path / "m.safetensors")


# ---------------------------------------------------------------- OpenVINO


def test_the_facts_of_an_openvino_model_and_the_bytes_of_both_its_files(tmp_path):
    path = tmp_path / "m.xml"
    xml_files(path, FULL.to_metadata())
    assert read_header(path) == (FULL, path.stat().st_size + 4, None, None)


def test_an_openvino_model_without_its_weights_is_told_which_file_is_missing(tmp_path):
    path = tmp_path / "m.xml"
    xml_files(path, FULL.to_metadata())
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match="missing") as caught:
        read_header(path)
    assert caught.value.where == str(tmp_path / "m.bin")
    assert "m.bin" in caught.value.remedy


@pytest.mark.parametrize(("text", "message"), [("<net>", "not a readable"), ("junk", "not a readable")])
def test_an_openvino_model_that_is_no_xml_is_an_error(tmp_path, text, message):
    xml_files(tmp_path / "m.xml", {})
    (tmp_path / "m.xml").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_header(tmp_path / "m.xml")


@pytest.mark.parametrize("rt_info", ["", "<rt_info><other/></rt_info>"])
def test_an_openvino_model_of_somebody_else_is_told_as_such(tmp_path, rt_info):
    xml_files(tmp_path / "m.xml", {})
    (tmp_path / "m.xml").write_text(WEIGHTLESS.format(rt_info=rt_info))
    with pytest.raises(ModelError, match="lacks the fact"):
        read_header(tmp_path / "m.xml")


# ---------------------------------------------------------------- engines


def test_the_facts_of_an_engine_lie_beside_it(tmp_path):
    path = tmp_path / "m.engine"
    builder = {"version": "10.3", "layers": 7}
    engine_files(path, {"schema_version": 1, "facts": FULL.to_metadata(), "engine": builder})
    assert read_header(path) == (FULL, 6, None, builder)


def test_an_engine_alone_is_told_which_file_is_missing(tmp_path):
    (tmp_path / "m.engine").write_bytes(b"a plan")
    with pytest.raises(ModelError, match="missing") as caught:
        read_header(tmp_path / "m.engine")
    assert caught.value.where == str(tmp_path / "m.engine.json")


@pytest.mark.parametrize("content", ["", "[1]", "{}", {"facts": []}, {"facts": {}, "engine": 3}, {"facts": {}}])
def test_what_lies_beside_an_engine_must_be_its_facts(tmp_path, content):
    engine_files(tmp_path / "m.engine", content)
    with pytest.raises(ModelError) as caught:
        read_header(tmp_path / "m.engine")
    assert caught.value.where == str(tmp_path / "m.engine.json")


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("kind", ["onnx", "xml", "engine"])
def test_a_file_of_a_later_version_asks_for_an_upgrade(tmp_path, kind):
    metadata = {**FACTS.to_metadata(), "format_version": "99"}
    path = tmp_path / f"m.{kind}"
    if kind == "onnx":
        import onnx

        model = onnx.load(write_onnx(path))
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
    elif kind == "xml":
        xml_files(path, metadata)
    else:
        engine_files(path, {"facts": metadata})
    with pytest.raises(ModelError, match="version 99") as caught:
        read_header(path)
    assert "newer version" in caught.value.remedy


def test_a_missing_fact_is_named(tmp_path):
    with pytest.raises(ModelError, match="geometry"):
        read_header(write_onnx(tmp_path / "m.onnx", leave_out=["geometry"]))


@pytest.mark.parametrize("name", ["m.pth", "m", "m.bin"])
def test_other_files_are_no_models(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match="not a supported model format") as caught:
        read_header(tmp_path / name)
    assert ".safetensors" in caught.value.remedy


def test_reading_headers_needs_none_of_the_libraries_that_run_models(tmp_path, model_file):
    write_onnx(tmp_path / "m.onnx")
    xml_files(tmp_path / "m.xml", FACTS.to_metadata())
    engine_files(tmp_path / "m.engine", {"facts": FACTS.to_metadata()})
    files = [str(model_file), *(str(tmp_path / f"m.{kind}") for kind in ("onnx", "xml", "engine"))]
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "pydantic", "rich")
    code = f"""
import sys
from pathlib import Path
from fcos_cli.runtime.info import print_info
from fcos_cli.runtime.headers import read_header
for file in {files!r}:
    print_info(read_header(Path(file)), path=Path(file), as_json=True)
print(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
