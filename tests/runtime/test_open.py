"""One detector for every kind of file: the same answers, the same errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fcos_cli.errors import FcosError, ModelError, UsageError
from fcos_cli.runtime import open as module
from fcos_cli.runtime.open import default_weights, find_artifact, open_detector
from tests.runtime.onnx_files import FACTS, answer, assert_same, pictures, write_onnx, write_openvino

FIVE = pictures(255, 200, 14, 0, 100)
EXPORTED = ["onnx by onnxruntime", "onnx by openvino", "xml by openvino"]


@pytest.fixture(params=EXPORTED)
def exported(request, tmp_path):
    """(write(**limits) → path, backend) of each kind of exported file that can be run on a CPU."""
    kind, backend = request.param.split(" by ")
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    write = write_onnx if kind == "onnx" else write_openvino
    return (lambda **limits: write(tmp_path / f"m.{kind}", **limits)), backend


# ---------------------------------------------------------------- exported files, whatever runs them


@pytest.mark.parametrize(
    "limits", [{}, {"batch": 1}, {"batch": 2}, {"size": (32, 48)}, {"batch": 2, "size": (32, 48)}, {"converged": True}]
)
def test_every_kind_of_file_gives_the_same_answer_to_the_last_bit(exported, limits):
    write, backend = exported
    detector = open_detector(write(**limits), backend=backend)
    for images in (FIVE, FIVE[:1], FIVE[1:3]):
        assert_same(detector(images), answer(images))


def test_a_detector_says_what_it_is(exported):
    write, backend = exported
    path = write()
    detector = open_detector(str(path), backend=backend, threads=1)
    assert (detector.name, detector.backend, detector.precision, str(detector.device)) == (
        str(path),
        backend,
        "fp32",
        "cpu",
    )
    assert detector.facts == FACTS


def test_free_sizes_may_change_from_call_to_call(exported):
    write, backend = exported
    detector = open_detector(write(), backend=backend)
    for size in ((32, 48), (64, 32), (32, 48)):
        images = pictures(200, 255, size=size)
        assert_same(detector(images), answer(images))


def test_answers_stay_as_they_are_when_the_next_are_computed(exported):
    write, backend = exported
    detector = open_detector(write(batch=2), backend=backend)
    first = detector(FIVE[:2])
    detector(FIVE[2:4])
    assert_same(first, answer(FIVE[:2]))


def test_a_score_filters(exported):
    write, backend = exported
    detector = open_detector(write(batch=2), backend=backend, score=0.5)
    assert_same(detector(FIVE), answer(FIVE, score=0.5))


def test_a_score_below_the_files_own_is_a_usage_error(exported):
    write, backend = exported
    with pytest.raises(UsageError, match=r"0\.05"):
        open_detector(write(), backend=backend, score=0.01)


def test_another_size_than_the_files_is_an_error(exported):
    write, backend = exported
    detector = open_detector(write(size=(32, 48)), backend=backend)
    with pytest.raises(ModelError, match=r"32 x 48.* not 64 x 64"):
        detector(pictures(1, size=(64, 64)))


def test_a_suppression_that_was_cut_off_is_an_error(exported):
    write, backend = exported
    detector = open_detector(write(converged=True), backend=backend)
    with pytest.raises(FcosError, match="NMS"):
        detector(pictures(1, 2, green=200))


def test_files_that_are_too_new_or_not_ours_or_damaged_are_told_before_a_library_reads_them(exported, capfd):
    write, backend = exported
    path = write(facts=None)
    with pytest.raises(ModelError, match="lacks the fact"):
        open_detector(path, backend=backend)
    path = write(leave_out=["thresholds"]) if path.suffix == ".onnx" else path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError) as caught:
        open_detector(path, backend=backend)
    assert caught.value.where == str(path)
    capfd.readouterr()
    with pytest.raises(ModelError):
        open_detector(path, backend=backend)
    assert capfd.readouterr() == ("", "")


def test_a_precision_that_the_file_has_not_is_a_usage_error(exported):
    write, backend = exported
    open_detector(write(), backend=backend, precision="fp32")
    with pytest.raises(UsageError, match="int8"):
        open_detector(write(), backend=backend, precision="int8")
    with pytest.raises(UsageError, match="fp32"):
        open_detector(write(facts=replace(FACTS, precision="int8")), backend=backend, precision="fp32")


def test_a_device_that_is_not_there_is_a_usage_error_that_names_what_is(exported):
    write, backend = exported
    path = write()
    for device in ("warp", "warp:1"):
        with pytest.raises(UsageError, match=r"OpenVINO, which has:|Runtime, which has:") as caught:
            open_detector(path, backend=backend, device=device)
        assert "cpu" in caught.value.what
        assert "--device cpu" in caught.value.remedy


# ---------------------------------------------------------------- which file, which backend


def test_weights_run_by_pytorch(model_file):
    detector = open_detector(model_file, device="cpu")
    assert (detector.backend, detector.precision, str(detector.device)) == ("pytorch", "fp32", "cpu")
    with pytest.raises(UsageError, match="int8"):
        open_detector(model_file, device="cpu", precision="int8")


def test_a_run_folder_is_its_best_weights_whatever_else_lies_there(model_file, tmp_path):
    for name in ("last.safetensors", "best.safetensors", "best.onnx", "best.xml"):
        (tmp_path / name).write_bytes(model_file.read_bytes())
    assert find_artifact(tmp_path) == tmp_path / "best.safetensors"
    assert open_detector(tmp_path, device="cpu").backend == "pytorch"


@pytest.mark.parametrize("name", ["m.pth", "m", "m.bin", "m.engine.json"])
def test_a_file_of_an_unknown_kind_is_an_error_that_names_the_known_ones(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match="not a supported model format") as caught:
        open_detector(tmp_path / name)
    assert ".onnx" in caught.value.remedy


def test_a_backend_that_cannot_run_the_file_is_a_usage_error(model_file, tmp_path):
    wrong = [(model_file, "onnxruntime"), (model_file, "tensorrt")]
    wrong += [(write_onnx(tmp_path / "m.onnx"), "pytorch"), (tmp_path / "m.onnx", "tensorrt")]
    for suffix, backend in ((".xml", "onnxruntime"), (".engine", "openvino")):
        (tmp_path / f"m{suffix}").touch()
        wrong.append((tmp_path / f"m{suffix}", backend))
    for path, backend in wrong:
        with pytest.raises(UsageError, match=f"{backend} cannot run a {path.suffix} file") as caught:
            open_detector(path, backend=backend)
        assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("setting", "value"), [("backend", "caffe"), ("precision", "fp4"), ("score", 1.5), ("score", -0.1), ("threads", 0)]
)
def test_settings_that_cannot_be_are_usage_errors_before_the_model_is_looked_for(setting, value):
    with pytest.raises(UsageError, match=str(value)):
        open_detector("nowhere.onnx", **{setting: value})


def test_an_engine_is_handed_to_tensorrt(tmp_path, monkeypatch):
    import sys
    from types import SimpleNamespace

    asked = {}
    stand_in = SimpleNamespace(precision="fp16", backend="tensorrt")

    def open_engine(path, **settings):
        asked.update(path=path, **settings)
        return stand_in

    fake = SimpleNamespace(TensorRtDetector=SimpleNamespace(open=open_engine))
    monkeypatch.setitem(sys.modules, "fcos_cli.runtime.tensorrt.detector", fake)
    (tmp_path / "m.engine").touch()
    assert open_detector(tmp_path / "m.engine", score=0.5, device="cuda:1", precision="fp16") is stand_in
    assert asked == {
        "path": tmp_path / "m.engine",
        "name": str(tmp_path / "m.engine"),
        "score": 0.5,
        "device": "cuda:1",
    }
    with pytest.raises(UsageError, match="fp16"):
        open_detector(tmp_path / "m.engine", precision="fp32")


class TestDefault:
    """`default`: the exported form where it ships, the weights where PyTorch is meant."""

    @pytest.fixture
    def assets(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setattr(module, "ASSETS", tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({}, "default.onnx"),
            ({"device": "cpu"}, "default.onnx"),
            ({"backend": "openvino"}, "default.onnx"),
            ({"backend": "onnxruntime", "device": "cuda"}, "default.onnx"),
            ({"backend": "pytorch"}, "default.safetensors"),
            ({"device": "cuda"}, "default.safetensors"),
            ({"device": "cuda:1"}, "default.safetensors"),
        ],
    )
    def test_it_is_what_starts_quickly_unless_pytorch_is_meant(self, assets, settings, expected):
        (assets / "default.onnx").touch()
        assert find_artifact("default", **settings) == assets / expected

    def test_without_an_exported_form_it_is_the_weights(self, assets):
        assert find_artifact("default") == default_weights() == assets / "default.safetensors"

    def test_it_keeps_its_name(self, assets):
        write_onnx(assets / "default.onnx")
        detector = open_detector()
        assert (detector.name, detector.backend) == ("default", "onnxruntime")
