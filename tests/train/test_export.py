"""best.onnx at the end of a run: exported and verified, left out, or reported as failed."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from fcos_cli.config import TrainConfig
from fcos_cli.errors import ParityError
from fcos_cli.export.run import ExportJob, ExportResult
from fcos_cli.model.artifact import save
from fcos_cli.train import export
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.export import TRACE_SECONDS, export_best, export_seconds, reserved_seconds
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.tiny import tiny_artifact, tiny_model

Said = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    save(tmp_path / "best.safetensors", tiny_artifact())
    return tmp_path


def test_weights_that_have_a_verified_export_are_not_exported_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = []

    def write(weights: Path, job: ExportJob) -> ExportResult:
        exported.append(job)
        made = {"export": {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}}
        facts = replace(FACTS, verified=job.verify, provenance=made)
        return ExportResult(write_onnx(job.out, facts=facts), facts, None)

    monkeypatch.setattr(export, "export", write)
    write_onnx(run / "best.onnx")  # of other weights
    for _ in range(2):
        assert export_best(run, TrainConfig(), Progress()) == run / "best.onnx"
    assert len(exported) == 1
    save(run / "best.safetensors", tiny_artifact(weights=tiny_model(seed=1).state_dict()))
    export_best(run, TrainConfig(), Progress())
    assert len(exported) == 2  # other weights


def test_no_export_is_silent(run: Path, capsys: Said) -> None:
    assert export_best(run, TrainConfig(export=False), Progress()) is None
    assert not (run / "best.onnx").exists()
    assert capsys.readouterr() == ("", "")


def test_an_export_without_time_is_left_out_and_said(run: Path, capsys: Said) -> None:
    assert export_best(run, TrainConfig(time=100), Progress(export_seconds=26)) is None
    assert f"fcos export {run}" in capsys.readouterr().err
    assert not (run / "best.onnx").exists()


@pytest.mark.parametrize("error", [ParityError("the outputs differ"), RuntimeError("no such operator")])
def test_a_failed_export_is_a_warning_and_leaves_no_file_of_earlier_weights(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said, error: Exception
) -> None:
    def fail(weights: Path, job: ExportJob) -> None:
        assert (weights, job.out) == (run / "best.safetensors", run / "best.onnx")
        raise error

    write_onnx(run / "best.onnx")
    monkeypatch.setattr(export, "export", fail)
    assert export_best(run, TrainConfig(), Progress()) is None
    said = capsys.readouterr().err
    assert "warning: the run is complete" in said
    assert str(error) in said
    assert f"fcos export {run}" in said
    assert not (run / "best.onnx").exists()


def test_time_is_reserved_for_an_export_that_will_be_made() -> None:
    progress = Progress(export_seconds=50)
    assert reserved_seconds(TrainConfig(), progress) == 50
    assert reserved_seconds(TrainConfig(time=200), progress) == 50
    assert reserved_seconds(TrainConfig(time=199), progress) == 0
    assert reserved_seconds(TrainConfig(time=200, export=False), progress) == 0


def test_a_slower_network_or_a_busy_machine_takes_longer() -> None:
    assert export_seconds(0.2, crowding=3) == export_seconds(0.2) + 2 * TRACE_SECONDS
    assert export_seconds(0.0) == TRACE_SECONDS
    assert export_seconds(0.2) == 2 * export_seconds(0.1) - TRACE_SECONDS


@pytest.mark.parametrize("config", [TrainConfig(export=False), TrainConfig(time=100)], ids=["off", "no time"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_of_other_weights_is_removed_though_none_takes_its_place(
    run: Path, config: TrainConfig, *, damaged: bool
) -> None:
    write_onnx(run / "best.onnx")
    if damaged:
        (run / "best.onnx").write_bytes(b"damaged")
    (run / "best.parity.json").write_text("{}")
    assert export_best(run, config, Progress(export_seconds=26)) is None
    assert [path.name for path in run.iterdir()] == ["best.safetensors"]


def test_a_file_of_these_weights_stays(run: Path) -> None:
    made = {"export": {"weights_sha256": hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()}}
    write_onnx(run / "best.onnx", facts=replace(FACTS, provenance=made))
    export_best(run, TrainConfig(export=False), Progress())
    assert (run / "best.onnx").is_file()


def test_a_damaged_file_is_exported_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "best.onnx").write_bytes(b"damaged")
    monkeypatch.setattr(export, "export", lambda _, job: ExportResult(write_onnx(job.out), FACTS, None))
    assert export_best(run, TrainConfig(), Progress()) == run / "best.onnx"
