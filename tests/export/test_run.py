"""`fcos export` end to end: output files, messages, and a failing parity check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import DataError, FcosError, ModelError, ParityError, UsageError
from fcos_cli.export import onnx as onnx_module
from fcos_cli.export import run
from fcos_cli.export.onnx import trace
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.export.vectors import with_vectors
from fcos_cli.model.artifact import Artifact, save
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.networks.cost import network_cost
from fcos_cli.parity.verify import vectors_of, verify
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.pytorch import facts_of
from fcos_cli.runtime.tensorrt.sidecar import Shape
from tests.tensorrt_stand_in import StandInGpu, install
from tests.tiny import tiny_artifact, tiny_model

pytestmark = pytest.mark.slow

ARTIFACT = tiny_artifact()


@pytest.fixture(scope="module")
def traced() -> bytes:
    """The tiny network's graph, traced once because tracing is slow."""
    options = ExportOptions()
    return bytes(trace(ARTIFACT, options.apply(facts_of(ARTIFACT)), options).SerializeToString())


@pytest.fixture
def weights(tmp_path: Path, traced: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "trace", lambda *_: onnx.ModelProto.FromString(traced))
    path = tmp_path / "best.safetensors"
    save(path, ARTIFACT)
    return path


def job_of(path: Path, **changes: object) -> run.ExportJob:
    return replace(run.ExportJob(ExportOptions(), path), **changes)


def test_default_output_paths() -> None:
    weights = Path("runs/train/x/best.safetensors")
    names = {
        ExportOptions(): "best.onnx",
        ExportOptions(precision="fp16"): "best-fp16.onnx",
        ExportOptions(format="openvino", precision="int8"): "best-openvino-int8.xml",
        ExportOptions(format="trt"): "best-trt.engine",
    }
    for options, name in names.items():
        assert run.default_out(weights, options) == weights.parent / name
    assert run.default_out(run.default_weights(), ExportOptions()) == Path("default.onnx")


def test_a_file_that_passes_parity_is_marked_verified_and_has_a_report(weights: Path) -> None:
    exported = run.export(weights, job_of(weights.with_suffix(".onnx")))
    assert exported.parity is not None
    assert exported.parity.passed
    facts = read_header(exported.path).facts
    assert facts.verified is True
    assert facts.classes == ARTIFACT.classes
    assert facts.provenance["export"]["weights"] == "best.safetensors"
    assert len(facts.provenance["export"]["weights_sha256"]) == 64
    assert facts.parameters == sum(weight.numel() for weight in ARTIFACT.weights.values())
    assert facts.macs == network_cost(ARTIFACT.config, classes=3, size=(64, 64)).macs
    report = json.loads(exported.path.with_suffix(".parity.json").read_text())
    assert report["passed"] is True
    pixels = np.zeros((2, 3, 160, 160), np.uint8)
    assert open_detector(exported.path)(pixels).boxes.shape == (2, 100, 4)
    vectors = vectors_of(facts, where=exported.path)
    assert [vector.size for vector in vectors] == [(160, 192)] * 3
    assert min(len(vector.expected.scores) for vector in vectors) > 0
    assert verify(open_detector(exported.path), vectors).passed


@pytest.mark.parametrize(
    ("facts", "way"),
    [
        ({}, "unverified; report this"),
        ({"winograd": 3}, "unverified; try --no-winograd, or report this"),
        ({"precision": "fp16"}, "unverified; try --precision fp32, or report this"),
        ({"precision": "int8"}, "unverified; judge int8 by its AP with --data, or report this"),
    ],
)
def test_the_remedy_for_a_difference_is_something_that_was_not_done(facts: dict[str, Any], way: str) -> None:
    exported = run.ExportResult(Path("m.onnx"), replace(facts_of(ARTIFACT), **facts), None)
    assert way in str(run.ExportDiffers(exported, "one box").remedy)


def test_a_file_whose_test_vectors_would_hold_nothing_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    facts = replace(facts_of(ARTIFACT), score_threshold=0.99)
    assert with_vectors(ARTIFACT, facts, Path("m.onnx"), size=None) == facts
    assert "PyTorch finds nothing in the bundled photos" in " ".join(capsys.readouterr().err.split())


def test_without_a_parity_check_the_file_is_unverified(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = run.export(weights, job_of(weights.with_suffix(".onnx"), verify=False))
    assert (exported.parity, read_header(exported.path).facts.verified) == (None, False)
    assert read_header(exported.path).facts.vectors == ""
    assert "--no-verify" in capsys.readouterr().err
    assert not exported.path.with_suffix(".parity.json").exists()


def test_a_file_that_fails_parity_is_an_error_and_stays_unverified(
    weights: Path, traced: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = onnx.ModelProto.FromString(traced)
    (bias,) = [t for t in wrong.graph.initializer if t.name.endswith("cls_logits.bias")]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.5, bias.name))
    monkeypatch.setattr(run, "trace", lambda *_: wrong)
    out = weights.with_suffix(".onnx")
    with pytest.raises(ParityError) as raised:
        run.export(weights, job_of(out))
    assert raised.value.exit_code == 5
    assert "raw outputs" in raised.value.what
    assert "marked as unverified; report this" in str(raised.value.remedy)  # it is in fp32, and without Winograd
    assert isinstance(raised.value, run.ExportDiffers)
    run.print_result(raised.value.exported, as_json=True)
    assert json.loads(capsys.readouterr().out)["parity"]["passed"] is False
    assert read_header(out).facts.verified is False
    assert json.loads(out.with_suffix(".parity.json").read_text())["passed"] is False


def test_a_file_with_other_facts_than_those_meant_fails(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(proto: onnx.ModelProto, path: Path, facts: Facts) -> None:
        onnx_module.write(proto, path, replace(facts, resize=ResizeRule("letterbox", (64, 96))))

    monkeypatch.setattr(run, "write", write)
    with pytest.raises(ParityError, match="facts: resize in the file is not what was to be written"):
        run.export(weights, job_of(weights.with_suffix(".onnx")))
    assert read_header(weights.with_suffix(".onnx")).facts.verified is False


def test_openvino_gets_the_same_facts_and_its_own_parity_check(weights: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    options = ExportOptions(format="openvino")
    exported = run.export(weights, run.ExportJob(options, weights.with_suffix(".xml")))
    assert exported.parity is not None
    assert exported.parity.backend == "openvino"
    header = read_header(exported.path)
    assert (header.facts.verified, header.facts.classes) == (True, ARTIFACT.classes)
    detector = open_detector(exported.path)
    assert verify(detector, vectors_of(detector.facts, where=exported.path)).passed
    assert weights.with_suffix(".bin").is_file()
    assert weights.with_suffix(".xml.parity.json").is_file()
    assert not weights.with_suffix(".onnx").exists()


def test_nothing_but_the_named_file_is_replaced(weights: Path) -> None:
    kept = {weights.with_suffix(suffix): suffix for suffix in (".onnx", ".parity.json", ".parity.png")}
    for path, text in kept.items():
        path.write_text(text)
    options = ExportOptions(format="openvino")
    run.export(weights, run.ExportJob(options, weights.with_suffix(".xml")))
    engine = run.export(
        weights, run.ExportJob(ExportOptions(format="trt"), weights.with_suffix(".engine"), verify=False)
    )
    assert {path: path.read_text() for path in kept} == kept
    if engine.unfinished:
        assert engine.path == weights.with_stem(f"{weights.stem}-2").with_suffix(".onnx")


def write_coco(data: Path, table: ClassTable) -> None:
    """A COCO data set of one black image without boxes, for train and val."""
    (data / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(data / "images/1.png")
    images = [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}]
    categories = [{"id": key, "name": name} for key, name in zip(table.ids, table.names, strict=True)]
    for split in ("train", "val"):
        content = {"images": images, "annotations": [], "categories": categories}
        (data / f"{split}.json").write_text(json.dumps(content))


def test_an_ap_that_cannot_be_measured_is_no_verdict(weights: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_coco(data, ARTIFACT.classes)
    exported = run.export(weights, job_of(weights.with_suffix(".onnx"), data=data))
    assert exported.parity is not None
    assert exported.parity.ap is None
    assert "ap_images" not in read_header(exported.path).facts.provenance["export"]


def test_ap_of_both_models_is_measured_if_data_is_given(weights: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 5):
        pixels = np.full((200, 180, 3), 40 * number, np.uint8)
        pixels[50:120, 40:130] = 255
        Image.fromarray(pixels).save(data / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 180, "height": 200})
        annotations.append({"id": number, "image_id": number, "category_id": 2, "bbox": [40, 50, 90, 70], "iscrowd": 0})
    categories = [{"id": i, "name": n} for i, n in zip(ARTIFACT.classes.ids, ARTIFACT.classes.names, strict=True)]
    document = {"images": images, "annotations": [{**a, "area": 6300} for a in annotations], "categories": categories}
    for split in ("train", "val"):
        (data / f"{split}.json").write_text(json.dumps(document))
    exported = run.export(weights, job_of(weights.with_suffix(".onnx"), data=data, limit=3))
    assert exported.parity is not None
    assert exported.parity.ap is not None
    assert exported.parity.ap.images == 3
    assert exported.parity.ap.difference == pytest.approx(0, abs=1e-6)


def test_only_pytorch_weights_are_exported_and_the_suffix_must_match(weights: Path) -> None:
    onnx_file = weights.with_suffix(".onnx")
    onnx_file.write_bytes(b"")
    with pytest.raises(ModelError, match="only PyTorch weights"):
        run.find_weights(str(onnx_file))
    with pytest.raises(UsageError, match=r"end in \.onnx"):
        run.export(weights, job_of(weights.with_suffix(".engine")))


WIDE = Shape(1, 640, 640)


@pytest.mark.parametrize(
    ("options", "changes", "error", "words"),
    [
        (ExportOptions(), {"data": Path("absent")}, DataError, "absent"),
        (ExportOptions(), {"data": Path("others")}, DataError, "no class in common"),
        (ExportOptions(precision="int8"), {}, UsageError, "images for calibration"),
        (ExportOptions(), {"limit": 3}, UsageError, "--limit"),
        (ExportOptions(), {"data": Path("others"), "limit": -1}, UsageError, "limit is -1"),
        (ExportOptions(), {"data": Path("others"), "limit": 3, "verify": False}, UsageError, "--limit is for"),
        (ExportOptions(), {"data": Path("others"), "verify": False}, UsageError, "--data is for int8"),
        (ExportOptions(format="openvino"), {"out": Path("mine.xml")}, UsageError, "belongs to no model"),
        (ExportOptions(), {"engine": {"workspace_mb": 9}}, UsageError, "--engine is for --format trt and trt-rtx"),
        (ExportOptions(format="trt"), {"engine": {"compute_capabilities": ["8.6"]}}, UsageError, "GPU of this machine"),
        (ExportOptions(format="trt"), {"engine": {"workspace_mb": 0}}, UsageError, "workspace of 0 MiB"),
        (ExportOptions(format="trt"), {"engine": {"profile": Profile(WIDE, WIDE, WIDE)}}, UsageError, "64 x 64 pixels"),
        (ExportOptions(format="openvino", size=(200, 200)), {"out": Path("folder.xml")}, UsageError, "folder.bin"),
    ],
    ids=str,
)
def test_what_cannot_work_is_an_error_before_anything_is_traced_or_replaced(
    options: ExportOptions,
    changes: dict[str, Any],
    error: type[FcosError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "trace", lambda *_: pytest.fail("traced"))
    if options.format == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    Path("folder.bin").mkdir()
    Path("mine.bin").touch()
    write_coco(Path("others"), ClassTable.from_names(["zebra"]))
    weights = Path("best.safetensors")
    save(weights, ARTIFACT)
    out = run.default_out(weights, options)
    out.touch()
    before = out.stat()
    with pytest.raises(error, match=words):
        run.export(weights, replace(run.ExportJob(options, out), **changes))
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    out.write_bytes(b"of another program")
    with pytest.raises(UsageError, match="not an fcos model, so it is not replaced"):
        run.export(weights, run.ExportJob(options, out))
    assert out.read_bytes() == b"of another program"


def test_the_report_of_an_earlier_file_goes_with_it(weights: Path) -> None:
    out = weights.with_suffix(".onnx")
    for suffix in (".parity.json", ".parity.png"):
        out.with_suffix(suffix).write_text("of an earlier file")
    run.export(weights, job_of(out, verify=False))
    assert sorted(path.name for path in out.parent.iterdir()) == ["best.onnx", "best.safetensors"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError("it does not run", where="x")])
def test_an_export_that_ends_early_leaves_the_earlier_file_and_its_report(
    weights: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    run.export(weights, job_of(weights.with_suffix(".onnx"), verify=False))
    for suffix in (".parity.json", ".parity.png"):
        weights.with_suffix(suffix).write_text(suffix)
    kept = {path: path.read_bytes() for path in weights.parent.iterdir()}

    def fail(artifact: Artifact, facts: Facts, path: Path, **_: object) -> None:
        assert read_header(path).facts.verified is False
        raise error

    monkeypatch.setattr(run, "check_parity", fail)
    with pytest.raises((KeyboardInterrupt, ModelError)):
        run.export(weights, job_of(weights.with_suffix(".onnx")))
    assert {path: path.read_bytes() for path in weights.parent.iterdir()} == kept


def test_an_engine_for_another_gpu_is_written_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, "trt-rtx", "1.7.1", gpu=StandInGpu((8, 9)))
    weights, out = tmp_path / "best.safetensors", tmp_path / "best-trt-rtx.engine"
    save(weights, ARTIFACT)
    options = ExportOptions(format="trt-rtx", nms="tensor")
    exported = run.export(weights, run.ExportJob(options, out, engine={"compute_capabilities": ["8.6"]}))
    assert (exported.path, exported.parity, exported.facts.verified) == (out, None, False)
    told = capsys.readouterr().err
    assert "the engine was not compared with PyTorch: the engine was built for compute capability 8.6" in told
    assert f"where it can run: fcos verify {out}" in told.replace("\n", " ")


def show_nms(artifact: Artifact, facts: Facts, options: ExportOptions) -> None:
    raise UsageError(options.nms)


@pytest.mark.parametrize(("candidates", "nms"), [(1000, "op"), (1001, "tensor")])
def test_tensorrt_suppresses_among_all_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: int, nms: str
) -> None:
    model = tiny_model(candidates=candidates)
    save(tmp_path / "best.safetensors", tiny_artifact(weights=model.state_dict(), config=model.config))
    monkeypatch.setattr(run, "trace", show_nms)
    with pytest.raises(UsageError, match=nms):
        run.export(tmp_path / "best.safetensors", job_of(tmp_path / "e.engine", options=ExportOptions(format="trt")))


def test_more_detections_than_tensorrt_can_select_are_an_error_before_tracing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(candidates=1000)
    save(tmp_path / "best.safetensors", tiny_artifact(weights=model.state_dict(), config=model.config))
    monkeypatch.setattr(run, "trace", show_nms)
    for count, words in ((3840, "op"), (3841, "at most 3840 detections per image, and this model has 3841")):
        options = ExportOptions(format="trt", max_detections=count)
        with pytest.raises(UsageError, match=words):
            run.export(tmp_path / "best.safetensors", job_of(tmp_path / "e.engine", options=options))


def show_command(_artifact: Artifact, _facts: Facts, job: run.ExportJob, **_: object) -> None:
    raise UsageError(job.command)


def test_what_finishes_the_job_elsewhere_is_known_without_a_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "best.safetensors"
    save(weights, ARTIFACT)
    monkeypatch.setattr(run, "build_graph", show_command)
    job = job_of(tmp_path / "e.engine", options=ExportOptions(format="trt", batch=4))
    with pytest.raises(UsageError, match=f"fcos export {weights} --format trt --precision fp32 --batch 4"):
        run.export(weights, job)
    with pytest.raises(UsageError, match="fcos export best --format trt"):
        run.export(weights, replace(job, command="fcos export best --format trt"))


def test_int8_with_a_fixed_batch(tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    save(weights, ARTIFACT)
    write_coco(tmp_path / "data", ARTIFACT.classes)
    options = ExportOptions(precision="int8", size=(160, 160), batch=2)
    job = run.ExportJob(options, tmp_path / "best-int8.onnx", data=tmp_path / "data", verify=False)
    detector = open_detector(run.export(weights, job).path)
    assert detector(np.zeros((2, 3, 160, 160), np.uint8)).counts.shape == (2,)


def refuse(*_: object, **__: object) -> None:
    raise UsageError("it takes one size only")


def test_a_backbone_refuses_a_size_that_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(backbone="convnext_atto")
    artifact = tiny_artifact(weights=model.state_dict(), config=model.config)
    options = ExportOptions(size=(500, 500))
    with pytest.raises(UsageError, match="gives a map of 62x62 at stride 8, not 63x63") as raised:
        trace(artifact, options.apply(facts_of(artifact)), options)
    assert raised.value.where == "--size"
    artifact = replace(artifact, geometry=ResizeRule("letterbox", (224, 160)).to_json())
    monkeypatch.setattr(onnx_module, "check_maps", refuse)
    with pytest.raises(UsageError) as raised:
        trace(artifact, ExportOptions().apply(facts_of(artifact)), ExportOptions())
    assert raised.value.remedy == "use --size 224x160, the model's own"
