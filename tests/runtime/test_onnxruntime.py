from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fcos_cli.errors import FcosError, ModelError, UsageError
from fcos_cli.runtime import onnxruntime as module
from fcos_cli.runtime.onnxruntime import CPU, CUDA, TENSORRT, OnnxRuntimeDetector, providers
from tests.runtime.onnx_files import pictures, write_onnx


def names(device: str, available: list[str]) -> list[list[str]]:
    return [[name for name, _ in attempt] for attempt in providers(device, available)]


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        ("auto", ["AzureExecutionProvider", CPU], [[CPU]]),
        ("auto", [TENSORRT, CUDA, CPU], [[CUDA, CPU], [CPU]]),
        ("cpu", [CUDA, CPU], [[CPU]]),
        ("cuda", [CUDA, CPU], [[CUDA, CPU]]),
        ("tensorrt", [TENSORRT, CUDA, CPU], [[TENSORRT, CUDA, CPU]]),
        ("tensorrt:1", [TENSORRT, CPU], [[TENSORRT, CPU]]),
    ],
)
def test_a_device_is_an_order_of_providers(device, available, expected):
    assert names(device, available) == expected


def test_the_number_of_a_gpu_is_passed_on_and_fp32_means_fp32():
    ((cuda, _),) = providers("cuda:3", [CUDA, CPU])
    assert cuda == (CUDA, {"device_id": "3", "use_tf32": "0"})


def test_images_of_many_sizes_do_not_search_algorithms_again_for_each():
    for device in ("auto", "cuda", "tensorrt"):
        options = dict(providers(device, [TENSORRT, CUDA, CPU], one_size=False)[0])
        assert options[CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "tensorrt", "gpu", "cuda:x", "", "mps"])
def test_a_device_that_this_onnx_runtime_has_not_is_a_usage_error(device):
    with pytest.raises(UsageError, match="which has: cpu") as caught:
        providers(device, ["AzureExecutionProvider", CPU])
    assert ("pip uninstall onnxruntime, then pip install onnxruntime-gpu" in caught.value.remedy) == device.startswith(
        ("cuda", "tensorrt")
    )


class FakeRuntime:
    """ONNX Runtime with CUDA on a machine without a working GPU: it `falls` back silently, or raises."""

    def __init__(self, *, falls: bool) -> None:
        import onnxruntime

        self.real, self.falls = onnxruntime, falls
        self.tried: list[list[str]] = []
        self.preloaded = 0
        self.SessionOptions = onnxruntime.SessionOptions
        self.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        self.preloaded += 1
        print("Failed to load libcudnn.so.9")  # noqa: T201

    def InferenceSession(self, path, options, *, providers, **settings):  # noqa: N802
        self.tried.append([name for name, _ in providers])
        if providers[0][0] == CUDA and not self.falls:
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")
        return self.real.InferenceSession(path, options, providers=[CPU], **settings)


@pytest.mark.parametrize("falls", [True, False])
def test_without_a_working_gpu_auto_takes_the_cpu_and_cuda_is_an_error(tmp_path, monkeypatch, capfd, falls):
    path, fake = write_onnx(tmp_path / "m.onnx"), FakeRuntime(falls=falls)
    monkeypatch.setattr(module, "_import", lambda: fake)
    assert OnnxRuntimeDetector.open(path, name="m", device="cpu").device == "cpu"
    fake.tried.clear()
    assert fake.preloaded == 0
    assert OnnxRuntimeDetector.open(path, name="m").device == "cpu"
    assert fake.preloaded == 1
    assert fake.tried == ([[CUDA, CPU]] if falls else [[CUDA, CPU], [CPU]])
    assert capfd.readouterr() == ("", "")
    with pytest.raises(
        UsageError if falls else ModelError, match="fell back to cpu" if falls else "CUDA failure 35"
    ) as caught:
        OnnxRuntimeDetector.open(path, name="m", device="cuda")
    assert "use --device cpu" in caught.value.remedy
    assert capfd.readouterr() == ("", "Failed to load libcudnn.so.9\n")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_a_process_that_may_use_few_cores_uses_no_more(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert module.allowed_threads() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert module.allowed_threads() == 0


def test_threads_are_those_asked_for(tmp_path):
    detector = OnnxRuntimeDetector.open(write_onnx(tmp_path / "m.onnx"), name="m", threads=3)
    assert detector.session.get_session_options().intra_op_num_threads == 3


def test_a_graph_with_other_inputs_or_outputs_is_an_error(tmp_path):
    import onnx

    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    del model.graph.output[3]  # counts
    onnx.save(model, path)
    with pytest.raises(ModelError, match="maps images to boxes, scores, classes, not"):
        OnnxRuntimeDetector.open(path, name="m")


def test_a_graph_that_onnx_runtime_refuses_is_an_error_told_once(tmp_path, capfd):
    import onnx

    path = write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperation"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="NoSuchOperation") as caught:
        OnnxRuntimeDetector.open(path, name="m")
    assert caught.value.where == str(path)
    assert "--device" not in caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_what_fails_while_running_is_told_once_with_the_models_name(tmp_path, capfd):
    detector = OnnxRuntimeDetector.open(write_onnx(tmp_path / "m.onnx"), name="m")
    with pytest.raises(FcosError, match="ONNX Runtime failed") as caught:
        detector(pictures(1)[:, :2])  # two channels
    assert "m.onnx" in str(caught.value.where)
    assert capfd.readouterr() == ("", "")


def test_without_onnx_runtime_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FcosError, match="not installed") as caught:
        OnnxRuntimeDetector.open(write_onnx(tmp_path / "m.onnx"), name="m")
    assert "pip install onnxruntime" in caught.value.remedy


def test_nothing_heavy_and_no_noise_on_the_way_from_picture_to_boxes(tmp_path):
    """`fcos predict` with an ONNX model, in a process of its own."""
    from PIL import Image

    path = write_onnx(tmp_path / "m.onnx")
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tmp_path / "red.jpg")
    heavy = ("torch", "torchvision", "timm", "onnx", "openvino", "hotcoco", "rich.console", "PIL.TiffImagePlugin")
    # newer versions of Typer import pydantic themselves, so that our own `config` is asked for instead
    heavy += ("fcos_cli.config", "fcos_cli.predict.draw")
    code = f"""
import sys
from fcos_cli.cli import main
sys.argv = ["fcos", "predict", {str(tmp_path / "red.jpg")!r}, "--model", {str(path)!r}, "--jsonl"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told, loaded = result.stderr.splitlines()
    assert told.startswith(str(tmp_path / "red.jpg"))
    assert loaded == "loaded:"
    assert '"class": "a"' in result.stdout
