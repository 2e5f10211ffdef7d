"""The parity report: JSON file, stderr and drawing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.parity.prove import prove
from fcos_cli.parity.report import print_parity, write_report
from fcos_cli.parity.tolerance import TOLERANCES
from fcos_cli.parity.verdict import ApParity, Layer, Parity
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.pytorch import facts_of
from tests.parity.fakes import MUTATIONS, FakeExport, Mutant, detecting_artifact


@pytest.fixture(scope="module")
def good() -> Parity:
    artifact = detecting_artifact()
    cuts = FakeExport(artifact.build())
    return prove(artifact, cuts, facts_of(artifact), pictures=demo_photos(), sizes=[(160, 192)], batches=[1, 2])


@pytest.fixture(scope="module")
def bad() -> Parity:
    artifact = detecting_artifact()
    cuts = FakeExport(Mutant.of(artifact, MUTATIONS["points off by half a cell"]).build(), cannot=("raw",))
    return prove(artifact, cuts, facts_of(artifact), pictures=demo_photos(), sizes=[(160, 192)], batches=[1])


def test_the_file_has_verdict_measurements_bounds_and_environment(good: Parity, tmp_path: Path) -> None:
    path = write_report(good, tmp_path / "model.onnx")
    assert path == tmp_path / "model.parity.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    assert (report["schema_version"], report["artifact"], report["passed"], report["failures"]) == (
        1,
        "model.onnx",
        True,
        [],
    )
    assert [row["output"] for row in report["raw_outputs"]["outputs"]][:2] == ["cls_p3", "cls_p4"]
    assert report["raw_outputs"]["height_width_batch"] == [[160, 192, 1], [160, 192, 2]]
    cases = {row["case"]: row for row in report["post_processing"]["cases"]}
    assert cases["none"]["reference"] == 0
    assert cases["one"]["matched"] == cases["one"]["times"] > 1
    assert {row["case"] for row in report["end_to_end"]["pictures"]} >= {"cat.jpg", "astronaut.jpg"}
    assert report["tolerance"]["raw_outputs_and_end_to_end"]["max_px"] == 0.05
    assert {"fcos", "torch", "numpy", "python", "cpu", "cores"} <= set(report["environment"])
    assert report["worst"]["drawn"] == "model.parity.png"
    assert len(report["worst"]["reference_box"]) == 4


def test_the_file_lists_failures_and_unmeasured_layers(bad: Parity, tmp_path: Path) -> None:
    report = json.loads(write_report(bad, tmp_path / "model.xml").read_text(encoding="utf-8"))
    assert not report["passed"]
    assert len(report["failures"]) == len(bad.failures) > 2
    assert report["raw_outputs"]["not_measured"] == "no raw here"
    assert not report["post_processing"]["passed"]


def test_values_that_are_not_finite_become_null(good: Parity, tmp_path: Path) -> None:
    rows = (replace(good.raw.rows[0], relative=float("inf"), largest=float("inf")),)
    broken = replace(good, raw=Layer("raw outputs", rows, ("raw outputs: broken",)))
    report = json.loads(write_report(broken, tmp_path / "model.onnx").read_text(encoding="utf-8"))
    assert report["raw_outputs"]["outputs"] == [{"output": "cls_p3", "relative": None, "largest": None}]


def test_names_stay_as_they_are(good: Parity, tmp_path: Path) -> None:
    noted = replace(good, notes=("a picture [1  2].jpg",))
    path = write_report(noted, tmp_path / "model.onnx")
    assert json.loads(path.read_text(encoding="utf-8"))["notes"] == ["a picture [1  2].jpg"]


@pytest.mark.parametrize(("reference", "allowed"), [(0.5, "≥ -0.01"), (0.09, "reported")])
def test_an_ap_that_is_no_verdict_is_only_reported(
    good: Parity, capsys: pytest.CaptureFixture[str], reference: float, allowed: str
) -> None:
    ap = ApParity("cards", 9, {"AP": reference}, {"AP": reference - 0.02})
    parity = replace(good, precision="int8", tolerance=TOLERANCES["int8"], ap=ap)
    print_parity(parity, more="")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "-0.0200" in line]
    assert line.rstrip().endswith(allowed)
    assert parity.passed == (allowed == "reported")


def test_the_worst_box_is_drawn_over_its_image(good: Parity, bad: Parity, tmp_path: Path) -> None:
    write_report(bad, tmp_path / "bad.onnx")
    assert bad.worst is not None
    assert bad.worst.image is not None
    drawn = np.asarray(Image.open(tmp_path / "bad.parity.png"))
    assert max(drawn.shape) == 1000
    orange, blue = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)  # the reference's, the exported model's
    shown = [bool((drawn == colour).all(-1).any()) for colour in (orange, blue)]
    assert shown == [bad.worst.reference_box is not None, bad.worst.exported_box is not None]
    write_report(replace(good, worst=None), tmp_path / "none.onnx")
    assert not (tmp_path / "none.parity.png").exists()


def test_stderr_shows_measured_and_allowed_differences(good: Parity, capsys: pytest.CaptureFixture[str]) -> None:
    ap = ApParity("cards", 9, {"AP": 0.5}, {"AP": 0.4996})
    print_parity(replace(good, ap=ap), more="")
    captured = capsys.readouterr()
    assert captured.out == ""
    for words in ("class logits, relative error", "post-processing", "end to end", "largest box difference"):
        assert words in captured.err
    assert "-0.0004" in captured.err
    assert "± 0.001" in captured.err
    assert "largest difference: 0 px" in captured.err
    assert "failed:" not in captured.err
    print_parity(replace(good, ap=ap, precision="fp16", tolerance=TOLERANCES["fp16"]), more="")
    assert "≥ -0.005" in capsys.readouterr().err


def test_stderr_shows_failures_and_unmeasured_layers(bad: Parity, capsys: pytest.CaptureFixture[str]) -> None:
    print_parity(bad, more="see the .parity.json")
    err = capsys.readouterr().err
    assert "not measured" in err
    assert "no raw here" in err
    assert "failed: post-processing:" in err
    assert "more, see the .parity.json" in err


def test_of_int8_only_sure_detections_are_counted(good: Parity, capsys: pytest.CaptureFixture[str]) -> None:
    print_parity(replace(good, tolerance=TOLERANCES["int8"]), more="")
    line = next(line for line in capsys.readouterr().err.splitlines() if "scores ≥ 0.2" in line)
    sure = sum(int((row.reference.scores >= 0.2).sum()) for row in good.end.rows)
    assert 0 < sure < sum(row.match.reference for row in good.end.rows)
    assert f"{sure} of {sure}" in line
