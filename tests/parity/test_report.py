"""The proof's report: what a program reads, what a person reads, and what is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.parity.prove import prove
from fcos_cli.parity.report import print_parity, write_report
from fcos_cli.parity.verdict import ApParity, Layer, Parity
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.pytorch import facts_of
from tests.parity.fakes import MUTATIONS, FakeCuts, Mutant, seeing_artifact


@pytest.fixture(scope="module")
def good() -> Parity:
    artifact = seeing_artifact()
    cuts = FakeCuts(artifact.build())
    return prove(artifact, cuts, facts_of(artifact), pictures=demo_photos(), sizes=[(160, 192)], batches=[1, 2])


@pytest.fixture(scope="module")
def bad() -> Parity:
    artifact = seeing_artifact()
    cuts = FakeCuts(Mutant.of(artifact, MUTATIONS["points off by half a cell"]).build(), cannot=("raw",))
    return prove(artifact, cuts, facts_of(artifact), pictures=demo_photos(), sizes=[(160, 192)], batches=[1])


def test_the_file_holds_verdict_figures_bounds_and_environment(good: Parity, tmp_path: Path) -> None:
    path = write_report(good, tmp_path / "model.onnx")
    assert path == tmp_path / "model.parity.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    assert (told["schema_version"], told["artifact"], told["passed"], told["failures"]) == (1, "model.onnx", True, [])
    assert [row["output"] for row in told["raw_outputs"]["outputs"]][:2] == ["cls_p3", "cls_p4"]
    assert told["raw_outputs"]["height_width_batch"] == [[160, 192, 1], [160, 192, 2]]
    cases = {row["case"]: row for row in told["post_processing"]["cases"]}
    assert cases["none"]["reference"] == 0
    assert cases["one"]["matched"] == cases["one"]["times"] > 1
    assert {row["case"] for row in told["end_to_end"]["pictures"]} >= {"cat.jpg", "astronaut.jpg"}
    assert told["tolerance"]["raw_outputs_and_end_to_end"]["max_px"] == 0.05
    assert {"fcos", "torch", "numpy", "python", "cpu", "cores"} <= set(told["environment"])
    assert told["worst"]["drawn"] == "model.parity.png"
    assert len(told["worst"]["reference_box"]) == 4


def test_failures_and_what_was_not_measured_are_in_the_file(bad: Parity, tmp_path: Path) -> None:
    told = json.loads(write_report(bad, tmp_path / "model.xml").read_text(encoding="utf-8"))
    assert not told["passed"]
    assert len(told["failures"]) == len(bad.failures) > 2
    assert told["raw_outputs"]["not_measured"] == "no raw here"
    assert not told["post_processing"]["passed"]


def test_figures_that_are_not_finite_become_null(good: Parity, tmp_path: Path) -> None:
    rows = (replace(good.raw.rows[0], relative=float("inf"), largest=float("inf")),)
    broken = replace(good, raw=Layer("raw outputs", rows, ("raw outputs: broken",)))
    told = json.loads(write_report(broken, tmp_path / "model.onnx").read_text(encoding="utf-8"))
    assert told["raw_outputs"]["outputs"] == [{"output": "cls_p3", "relative": None, "largest": None}]


def test_the_worst_box_is_drawn_over_its_picture(good: Parity, bad: Parity, tmp_path: Path) -> None:
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


def test_people_read_what_was_measured_and_allowed(good: Parity, capsys: pytest.CaptureFixture[str]) -> None:
    ap = ApParity("cards", 9, {"AP": 0.5}, {"AP": 0.4996})
    print_parity(replace(good, ap=ap))
    told = capsys.readouterr()
    assert told.out == ""
    for words in ("class logits, relative error", "post-processing", "end to end", "largest box difference"):
        assert words in told.err
    assert "-0.0004" in told.err
    assert "largest difference: 0 px" in told.err
    assert "not passed" not in told.err


def test_people_read_what_failed_and_what_was_not_measured(bad: Parity, capsys: pytest.CaptureFixture[str]) -> None:
    print_parity(bad)
    told = capsys.readouterr().err
    assert "not measured" in told
    assert "no raw here" in told
    assert "not passed: post-processing:" in told
    assert "more, see the .parity.json" in told
