from __future__ import annotations

import gc
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from fcos_cli.errors import FcosError, MissingExtra, ModelError, UsageError
from fcos_cli.runtime import openvino as module
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.openvino import OpenVinoDetector, pick_device
from tests.runtime.onnx_files import FACTS, answer, assert_same, pictures, write_onnx, write_openvino

openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", "CPU"), ("cpu", "CPU"), ("gpu", "GPU"), ("gpu:1", "GPU.1"), ("gpu.0", "GPU.0")],
)
def test_devices_by_openvinos_names(device, expected):
    assert pick_device(device, ["CPU", "GPU.0", "GPU.1"]) == expected


@pytest.mark.parametrize("device", ["cuda", "gpu", "cpu:1", ""])
def test_a_device_that_is_not_there_is_a_usage_error(device):
    with pytest.raises(UsageError, match="which has: cpu"):
        pick_device(device, ["CPU"])


def test_both_kinds_of_file_and_onnx_runtime_agree_to_the_last_bit(tmp_path):
    images = pictures(*range(0, 256, 5))
    found = [
        open_detector(write_onnx(tmp_path / "m.onnx", batch=3))(images),
        open_detector(tmp_path / "m.onnx", backend="openvino")(images),
        open_detector(write_openvino(tmp_path / "m.xml", batch=3))(images),
    ]
    for one in found:
        assert_same(one, answer(images))


def test_an_input_may_have_further_names(tmp_path):
    """As in a quantized file whose normalization was folded away."""
    core = openvino.Core()
    model = core.read_model(write_onnx(tmp_path / "m.onnx"))
    model.input(0).get_tensor().add_names({"scaled_QuantizeLinear_Output"})
    compiled = core.compile_model(model, "CPU")
    module.leave_signal_stack()
    assert len(compiled.inputs[0].get_names()) == 2
    detector = OpenVinoDetector(compiled, FACTS, path=tmp_path / "m.onnx", name="m", device="cpu", score=None)
    assert_same(detector(pictures(0, 200)), answer(pictures(0, 200)))


@pytest.mark.skipif(not BF16, reason="this CPU has no bf16")
def test_float32_is_asked_for_even_where_the_cpu_has_bf16(tmp_path):
    path = write_openvino(tmp_path / "m.xml")
    assert OpenVinoDetector.open(path, name="m").precision == "fp32"
    assert OpenVinoDetector.open(path, name="m", precision="bf16").precision == "bf16"


@pytest.mark.skipif(not BF16, reason="this CPU has no bf16")
def test_a_quantized_model_is_int8_and_with_bf16_for_the_rest_mixed(tmp_path):
    path = write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, precision="int8"))
    assert open_detector(path, backend="openvino").precision == "int8"
    assert open_detector(path, backend="openvino", precision="int8").precision == "int8"
    assert open_detector(path, backend="openvino", precision="bf16").precision == "mixed"


def test_a_precision_that_the_cpu_has_not_is_a_usage_error_that_names_what_it_has(tmp_path, monkeypatch):
    class OldCpu:
        available_devices = ("CPU",)

        def add_extension(self, extension):
            pass

        def get_property(self, device, name):
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return ["WINOGRAD", "FP32", "INT8"]

    path = write_onnx(tmp_path / "m.onnx")
    monkeypatch.setattr(openvino, "Core", OldCpu)
    for precision in ("bf16", "fp16"):
        with pytest.raises(UsageError, match=f"does not support {precision}") as caught:
            OpenVinoDetector.open(path, name="m", precision=precision)
        assert "fp32" in caught.value.remedy


def test_weights_that_are_cut_off_are_an_error(tmp_path):
    path = write_openvino(tmp_path / "m.xml")
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(ModelError, match="OpenVINO cannot load") as caught:
        OpenVinoDetector.open(path, name="m")
    assert caught.value.where == str(path)
    assert ".bin" in caught.value.remedy


def test_a_graph_with_other_inputs_or_outputs_is_an_error(tmp_path):
    import onnx

    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    del model.graph.output[3]  # counts
    onnx.save(model, path)
    with pytest.raises(ModelError, match="maps images to boxes, scores, classes, not"):
        OpenVinoDetector.open(path, name="m")


def test_what_fails_while_running_is_told_with_the_models_name(tmp_path):
    detector = OpenVinoDetector.open(write_onnx(tmp_path / "m.onnx"), name="m")
    with pytest.raises(FcosError, match="OpenVINO failed") as caught:
        detector(pictures(1)[:, :2])  # two channels
    assert "m.onnx" in str(caught.value.where)


def test_threads_are_those_asked_for(tmp_path, monkeypatch):
    asked = {}
    compile_model = openvino.Core.compile_model

    def listen(core, model, device, config):
        asked.update(config)
        return compile_model(core, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", listen)
    OpenVinoDetector.open(write_onnx(tmp_path / "m.onnx"), name="m", threads=1)
    assert asked == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": "1",
    }


def test_without_openvino_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra) as caught:
        module.OpenVinoDetector.open(write_onnx(tmp_path / "m.onnx"), name="m")
    assert "fcos-cli[openvino]" in caught.value.remedy


def test_it_needs_neither_torch_nor_onnx_and_writes_nothing(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for path in (write_onnx(tmp_path / "m.onnx"), write_openvino(tmp_path / "m.xml")):
        code = f"""
import sys
import numpy as np
from fcos_cli.runtime.open import open_detector
open_detector({str(path)!r}, backend="openvino")(np.full((1, 3, 32, 48), 200, np.uint8))
print(*(name for name in ("torch", "onnx", "onnxruntime", "pydantic", "rich") if name in sys.modules))
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
        assert (result.stdout.split(), result.stderr) == ([], "")
    assert list(folder.iterdir()) == []


def test_signals_are_still_survived_after_two_models_have_come_and_gone(tmp_path):
    """Their compiler moves the signal stack to memory of its own; a stale one would crash this very process."""
    path = write_onnx(tmp_path / "m.onnx")
    for _ in range(2):
        pair = [open_detector(path, backend="openvino") for _ in range(2)]
        pair.reverse()
        while pair:
            pair.pop()
            gc.collect()
    seen = []
    former = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert seen == [signal.SIGTERM]
