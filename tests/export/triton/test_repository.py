"""`fcos export --format triton`: the model repository, and what Triton's own protobuf definitions make of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import FcosError, ModelError, UsageError
from fcos_cli.export import run
from fcos_cli.export.job import ExportJob
from fcos_cli.export.options import make_options
from fcos_cli.export.triton.config import Served, Tensor, config_text
from fcos_cli.export.triton.describe import describe
from fcos_cli.export.triton.repository import check_repository, export_repository, served_name
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import CONVERGED, OUTPUTS
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.tensorrt.sidecar import EngineRecord, Shape, write_sidecar
from tests.cli_runner import Fcos
from tests.small_onnx import FACTS, write_onnx

JOB = ExportJob(make_options("onnx"), Path("models"))


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parsed(text: str) -> Any:
    """The message that Triton reads from a config.pbtxt; unknown fields and wrong values raise an error."""
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse(text, model_config.ModelConfig())


def config_of(model: str) -> Any:
    return parsed(Path("models", model, "config.pbtxt").read_text(encoding="utf-8"))


def write_engine(
    path: Path, *, least: Shape, most: Shape, flavour: Any = "trt", outputs: tuple[str, ...] = OUTPUTS, **changes: Any
) -> Path:
    shapes = {"min": least, "opt": Shape(most.batch, 64, 96), "max": most}
    rest = {"onnx_sha256": "", "engine_sha256": "", "outputs": outputs}
    record = EngineRecord(flavour, "10.1", "fp16", {"fp16": 2}, seconds=1.0, date="", **shapes, **rest)
    path.write_bytes(b"engine")
    write_sidecar(path, replace(FACTS, **changes), record)
    return path


def test_a_finished_file_becomes_version_one_with_labels_and_facts() -> None:
    names = ClassTable(('quo"te\\', "é\nfree", "c"), (1, 2, 3))
    file = write_onnx(Path("a b.onnx"), classes=names, threshold=0.4)
    result = export_repository(str(file), JOB)
    assert result.path == Path("models/a_b/1/model.onnx")
    assert result.path.read_bytes() == file.read_bytes()
    assert open_detector(result.path)(np.zeros((3, 3, 64, 64), np.uint8)).counts.shape == (3,)
    assert Path("models/a_b/labels.txt").read_text(encoding="utf-8") == 'quo"te\\\né free\nc\n'
    assert sorted(path.name for path in Path("models/a_b").iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    config = config_of("a_b")
    facts = Facts.from_metadata(json.loads(config.parameters["fcos"].string_value), where=file)
    assert (facts.classes, facts.threshold, facts.resize) == (names, 0.4, FACTS.resize)


def test_the_config_describes_a_graph_with_dynamic_batch() -> None:
    export_repository(str(write_onnx(Path("free.onnx"))), JOB)
    config = config_of("free")
    assert (config.name, config.backend, config.default_model_filename) == ("free", "onnxruntime", "model.onnx")
    assert config.max_batch_size == 8
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
    (images,) = config.input
    assert (images.name, images.data_type, list(images.dims)) == ("images", 2, [3, -1, -1])  # TYPE_UINT8
    found = {value.name: (value.data_type, list(value.dims)) for value in config.output}
    assert found == {"boxes": (11, [8, 4]), "scores": (11, [8]), "classes": (9, [8]), "counts": (9, [1])}
    (counts,) = (value for value in config.output if value.name == "counts")
    assert counts.HasField("reshape")
    assert list(counts.reshape.shape) == []  # one number per image
    assert [value.label_filename for value in config.output] == ["", "", "labels.txt", ""]
    warm = [(sample.batch_size, list(sample.inputs["images"].dims)) for sample in config.model_warmup]
    assert warm == [(batch, [3, 64, 64]) for batch in range(1, 9)], "requests may be batched to each of these"
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1", "no search for each batch on a GPU"
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 0)]  # KIND_AUTO


def test_a_fixed_batch_is_part_of_the_shapes_and_is_not_batched() -> None:
    export_repository(str(write_onnx(Path("fixed.onnx"), free=False, batch=2)), JOB)
    config = config_of("fixed")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [2, 3, 64, 64]
    assert [list(value.dims) for value in config.output] == [[2, 8, 4], [2, 8], [2, 8], [2]]
    assert [list(sample.inputs["images"].dims) for sample in config.model_warmup] == [[2, 3, 64, 64]]


def test_an_engine_gets_the_shapes_of_its_profile() -> None:
    rules = {"conventions": Conventions(clip="picture"), "resize": ResizeRule("shortest", (64, 96), filter="float")}
    file = write_engine(Path("e.engine"), least=Shape(1, 64, 64), most=Shape(16, 64, 128), **rules)
    result = export_repository(str(file), JOB)
    assert result.path == Path("models/e/1/model.plan")
    assert result.path.read_bytes() == b"engine"
    config = config_of("e")
    assert (config.backend, config.max_batch_size, config.instance_group[0].kind) == ("tensorrt", 16, 1)  # KIND_GPU
    shapes = {value.name: (value.data_type, list(value.dims)) for value in (*config.input, *config.output)}
    assert shapes == {
        "images": (11, [3, 64, -1]),
        "sizes": (9, [2]),
        "boxes": (11, [100, 4]),
        "scores": (11, [100]),
        "classes": (9, [100]),
        "counts": (9, [1]),
    }
    assert [sample.batch_size for sample in config.model_warmup] == [1, 16]
    assert list(config.model_warmup[1].inputs["images"].dims) == [3, 64, 96]
    assert list(config.parameters) == ["fcos"]


def test_an_engine_whose_nms_may_not_converge_says_so_to_clients() -> None:
    shape, outputs = Shape(1, 64, 64), (*OUTPUTS, CONVERGED)
    file = write_engine(Path("e.engine"), least=shape, most=shape, outputs=outputs)
    assert describe(file).outputs[-1] == Tensor("converged", "BOOL", (1,))
    assert [tensor.name for tensor in describe(file).outputs] == list(outputs)


def test_engines_that_triton_cannot_run_are_an_error() -> None:
    sizes = {"least": Shape(1, 64, 64), "most": Shape(4, 64, 64)}
    with pytest.raises(ModelError, match="this one is for TensorRT for RTX"):
        export_repository(str(write_engine(Path("x.engine"), flavour="trt-rtx", **sizes)), JOB)
    sizes["least"] = Shape(2, 64, 64)
    with pytest.raises(ModelError, match="takes 2 images or more"):
        export_repository(str(write_engine(Path("x.engine"), **sizes)), JOB)
    assert not Path("models").exists()


def test_the_shapes_of_a_real_export_are_those_of_the_graph() -> None:
    from fcos_cli.resources import ASSETS

    served = describe(ASSETS / "default.onnx")
    assert served.most == 8
    assert served.inputs == (Tensor("images", "UINT8", (None, 3, None, None)),)
    assert served.outputs[0] == Tensor("boxes", "FP32", (None, 100, 4))
    assert parsed(config_text(served, "default")).name == "default"


def test_the_next_export_is_the_next_version_and_edits_stay() -> None:
    export_repository(str(write_onnx(Path("m.onnx"), threshold=0.4)), JOB)
    config = Path("models/m/config.pbtxt")
    edited = config.read_text().replace("count: 1", "count: 3").replace("max_batch_size: 8", "max_batch_size: 16")
    config.write_text(edited.replace("\ninput [", "\n# of the cats\noptimization { }\ninput ["))
    assert export_repository(str(write_onnx(Path("m.onnx"), threshold=0.7)), JOB).path.parent.name == "2"
    text = config.read_text()
    assert "count: 3" in text
    assert "# of the cats" in text
    assert "max_batch_size: 16" in text
    assert text.count('key: "fcos"') == 1
    assert json.loads(json.loads(config_of("m").parameters["fcos"].string_value)["thresholds"])["global"] == 0.7
    assert sorted(path.name for path in Path("models/m").iterdir() if path.is_dir()) == ["1", "2"]


@pytest.mark.parametrize(
    "changes", [{"classes": ClassTable(("a", "b", "d"), (1, 2, 3))}, {"free": False}], ids=["classes", "shape"]
)
def test_another_model_of_the_same_name_is_an_error_and_the_repository_stays(changes: dict[str, Any]) -> None:
    export_repository(str(write_onnx(Path("m.onnx"))), JOB)
    before = {path: path.read_bytes() for path in Path("models").rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="has different inputs, outputs or classes"):
        export_repository(str(write_onnx(Path("m.onnx"), **changes)), JOB)
    assert {path: path.read_bytes() for path in Path("models").rglob("*") if path.is_file()} == before
    assert [path.name for path in Path("models/m").iterdir() if path.is_dir()] == ["1"]


def test_folders_that_are_no_repository_are_an_error() -> None:
    root = Path("root")
    check_repository(root)
    root.mkdir()
    check_repository(root)
    (root / ".git").mkdir()
    check_repository(root)
    (root / "photo.jpg").touch()
    with pytest.raises(UsageError, match="repository of Triton: photo"):
        check_repository(root)
    (root / "other/1").mkdir(parents=True)
    check_repository(root)  # a repository with a file beside its models
    (root / "holiday").mkdir()
    with pytest.raises(UsageError, match="holiday is not a model"):
        check_repository(root)
    with pytest.raises(UsageError, match="cannot write here"):
        check_repository(root / "photo.jpg")


def test_a_model_that_another_program_wrote_is_not_touched() -> None:
    Path("models/m/1").mkdir(parents=True)
    with pytest.raises(UsageError, match="of this name without config"):
        export_repository(str(write_onnx(Path("m.onnx"))), JOB)
    shutil.rmtree("models")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/train/birds/best.safetensors", "birds"),
        ("runs/train/birds 2/last.safetensors", "birds_2"),
        ("runs/train/birds/best-fp16.onnx", "birds-fp16"),
        ("runs/train/birds/last-trt.engine", "birds-trt"),
        ("runs/train/birds/bestiary.onnx", "bestiary"),
        ("a/photo model.onnx", "photo_model"),
        ("a/.hidden.onnx", "hidden"),
        ("a/Ω.onnx", "_"),
    ],
)
def test_models_are_named_after_the_run_or_the_file(path: str, name: str) -> None:
    assert served_name(Path(path)) == name


def quick_export(weights: Path, job: ExportJob, *, fails: bool = False, **changes: Any) -> run.ExportResult:
    """An export without tracing and comparison. changes: to the graph."""
    job.out.parent.mkdir(parents=True)
    exported = run.ExportResult(write_onnx(job.out, **changes), FACTS, None)
    if fails:
        raise run.ExportDiffers(exported, "one box")
    return exported


def test_weights_are_exported_and_compared_first(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "export", quick_export)
    assert export_repository(str(model_file), JOB).path == Path("models/tiny/1/model.onnx")
    names = sorted(path.name for path in Path("models/tiny").iterdir())
    assert names == ["1", "config.pbtxt", "labels.txt"]
    kept = Path("models/tiny/unverified")
    kept.mkdir()
    (kept / "earlier").touch()
    monkeypatch.setattr(run, "export", partial(quick_export, fails=True))
    with pytest.raises(run.ExportDiffers, match="one box") as caught:
        export_repository(str(model_file), JOB)
    assert caught.value.exported.path.resolve() == (kept / "model.onnx").resolve()
    assert "models/tiny/unverified" in str(caught.value.where)
    assert [path.name for path in kept.iterdir()] == ["model.onnx"]
    names = sorted(path.name for path in Path("models/tiny").iterdir())
    assert names == ["1", "config.pbtxt", "labels.txt", "unverified"]  # which Triton does not serve


def test_a_first_version_that_failed_is_kept_outside_the_repository(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "export", partial(quick_export, fails=True))
    for _ in range(2):
        with pytest.raises(run.ExportDiffers) as caught:
            export_repository(str(model_file), JOB)
        assert caught.value.exported.path == Path("models.unverified/tiny/model.onnx").resolve()
        assert caught.value.exported.path.is_file()
        assert list(Path("models").iterdir()) == []  # a server would try to load a folder without versions


def test_a_first_version_that_failed_is_kept_if_nothing_can_be_written_beside_the_repository(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "export", partial(quick_export, fails=True))
    Path("models.unverified").touch()
    with pytest.raises(run.ExportDiffers) as caught:
        export_repository(str(model_file), JOB)
    assert caught.value.exported.path.is_file()
    assert caught.value.exported.path.name == "model.onnx"


def test_an_export_that_cannot_be_the_next_version_is_kept(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "export", quick_export)
    export_repository(str(model_file), JOB)
    monkeypatch.setattr(run, "export", partial(quick_export, free=False))
    with pytest.raises(UsageError, match="different inputs"):
        export_repository(str(model_file), JOB)
    assert Path("models/tiny/unverified/model.onnx").is_file()
    assert f"kept: {Path('models/tiny/unverified/model.onnx')}" in capsys.readouterr().err


def test_what_is_left_of_an_earlier_export_is_neither_published_nor_deleted() -> None:
    kept = Path("models/e/unverified/model.onnx")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"failed")
    Path("models/e/unverified-of-a-killed-export").mkdir()
    shape = Shape(1, 64, 64)
    version = export_repository(str(write_engine(Path("e.engine"), least=shape, most=shape)), JOB).path.parent
    assert sorted(path.name for path in version.iterdir()) == ["model.plan", "model.plan.json"]
    assert kept.read_bytes() == b"failed"


def test_a_version_that_failed_stays_if_a_finished_file_is_refused() -> None:
    kept = Path("models/m/unverified/model.onnx")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"failed")
    with pytest.raises(UsageError, match="exported with other options"):
        export_repository(str(write_onnx(Path("m.onnx"))), replace(JOB, verify=False))
    assert kept.read_bytes() == b"failed"


def test_a_failed_export_leaves_no_empty_folders(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(weights: Path, job: ExportJob) -> None:
        job.out.parent.mkdir(parents=True)
        raise FcosError("the disk is full")

    monkeypatch.setattr(run, "export", fail)
    with pytest.raises(FcosError):
        export_repository(str(model_file), JOB)
    assert list(Path("models").iterdir()) == []


def test_the_command(fcos: Fcos) -> None:
    file = write_onnx(Path("small.onnx"))
    result = fcos("export", file, "--format", "triton", "--out", "served", "--json")
    assert result.code == 0
    assert result.document["artifact"] == "served/small/1/model.onnx"
    assert "tritonserver --model-repository=served" in result.err
    assert fcos("export", file, "--format", "triton", "--precision", "fp16").code == 2
    assert fcos("export", file, "--format", "triton", "--out", file).code == 2
    assert "trt-rtx, triton" in fcos("export", file, "--format", "tritn").err


def served(**changes: Any) -> Served:
    images = Tensor("images", "UINT8", (None, 3, 32, 32))
    return replace(Served("model.onnx", "onnxruntime", (images,), (images,), 8, (32, 32), FACTS), **changes)


def test_a_wrong_config_would_be_found() -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf.text_format import ParseError

    good = config_text(served(), "m")
    parsed(good)
    for old, new in (("max_batch_size", "most"), ("TYPE_UINT8", "TYPE_BYTE"), ("[ 3, 32, 32 ]", "[ 3, x ]")):
        assert old in good
        with pytest.raises(ParseError):
            parsed(good.replace(old, new))
