"""Tables and JSON document of a benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.bench.results import BenchResult, add_ratios
from fcos_cli.bench.tables import number, print_environment, print_results, short_names

FACTS: dict[str, Any] = {
    "cpu": "Example CPU", "threads": 2, "cores": 2, "gpus": [], "load": 0.1, "rounds": 3, "pictures": 2,
}  # fmt: skip


def row(model: str, total: float, **changes: Any) -> BenchResult:
    sample = {"open": 1.0, "preprocess": 2.0, "network_decode_nms": total - 3.0, "total": total}
    return BenchResult(model, "onnxruntime", 1, precision="fp32", rounds=[[sample]] * 3, **changes)


SKIPPED = BenchResult("m.engine", None, 1, asked="fp16", skipped="no GPU here")


def test_tables_show_results_reasons_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("x/a.onnx", 40.0, ap=0.5), row("x/b.onnx", 20.0, ap=0.25, note="fp16 was requested"), SKIPPED]
    add_ratios(rows)
    print_results(rows, FACTS, as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    line = next(line for line in err.splitlines() if line.split()[:1] == ["b.onnx"])
    assert line.split() == [
        "b.onnx",
        "onnxruntime",
        "fp32",
        "1",
        "20.0",
        "20.0",
        "20.0",
        "50.0",
        "2.00",
        "0.250",
        "0.0125",
    ]
    assert "network+decode+NMS" in err
    assert "decode+NMS   " not in err.replace("network+decode+NMS", "")  # empty columns are left out
    assert "m.engine · fp16 · batch 1: not measured: no GPU here" in err
    assert "x/b.onnx · onnxruntime · fp32 · batch 1: fp16 was requested" in err
    assert "fastest first: x/b.onnx" in err


def test_the_document_has_the_environment_and_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([row("a.onnx", 40.0), SKIPPED], FACTS, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["environment"] == FACTS
    assert [entry.get("skipped") for entry in document["rows"]] == [None, "no GPU here"]
    assert document["rows"][0]["p50_ms"] == 40.0


def test_the_run_folder_that_one_is_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path / "birds")
    assert short_names([row(".", 1.0), row("x/a.onnx", 1.0)]) == ["birds", "a.onnx"]
    assert short_names([row("default", 1.0)]) == ["default"]


def test_no_table_if_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([SKIPPED], FACTS, as_json=False)
    assert capsys.readouterr().err.strip() == "m.engine · fp16 · batch 1: not measured: no GPU here"


def test_warning_on_a_busy_machine(capsys: pytest.CaptureFixture[str]) -> None:
    print_environment(FACTS)
    assert "warning" not in capsys.readouterr().err
    print_environment({**FACTS, "load": 1.5})
    assert "busy" in capsys.readouterr().err


def test_threads_are_those_that_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_environment(FACTS)
    assert "Example CPU, 2 threads;" in capsys.readouterr().err
    print_environment({**FACTS, "threads": None})
    assert "Example CPU, default threads;" in capsys.readouterr().err


def test_folders_are_dropped_if_names_stay_unique() -> None:
    assert short_names([row("x/a.onnx", 5.0), row("x/a.onnx", 5.0), row("y/b.onnx", 5.0)]) == [
        "a.onnx",
        "a.onnx",
        "b.onnx",
    ]
    assert short_names([row("x/a.onnx", 5.0), row("y/a.onnx", 5.0)]) == ["x/a.onnx", "y/a.onnx"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), (1234.4, "1234"), (99.96, "100"), (12.34, "12.3"), (0.123, "0.12")]
)
def test_numbers_have_about_three_digits(value: float | None, text: str | None) -> None:
    assert number(value) == text
