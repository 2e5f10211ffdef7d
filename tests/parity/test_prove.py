"""The parity check: what it measures, accepts and rejects, and how it reports that."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.boxes import box_area
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import UsageError
from fcos_cli.evaluate.coco import collect_detections, evaluate
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES
from fcos_cli.model.conventions import Conventions
from fcos_cli.parity import inputs
from fcos_cli.parity.prove import ap_parity, prove
from fcos_cli.parity.subgraphs import ModelOutput
from fcos_cli.parity.tolerance import TOLERANCES
from fcos_cli.parity.verdict import ApParity, Parity
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from fcos_cli.runtime.results import RawDetections
from tests.parity.fakes import FakeExport, detecting_artifact, without_last

SMALL = {"sizes": [(160, 192)], "batches": [2]}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return detecting_artifact()


def check(artifact: Artifact, model: FakeExport | None = None, **options: object) -> Parity:
    arguments = {**SMALL, "facts": facts_of(artifact), "pictures": demo_photos(), **options}
    return prove(artifact, model or FakeExport(artifact.build()), **arguments)  # type: ignore[arg-type]


def test_the_reference_agrees_with_itself(artifact: Artifact) -> None:
    model = FakeExport(artifact.build())
    parity = prove(artifact, model, facts_of(artifact), pictures=demo_photos())
    assert parity.passed
    assert (parity.failures, parity.notes) == ([], ())
    assert all(row.relative == 0 for row in parity.raw.rows)
    assert all(row.match.max_px == 0 and not row.match.unmatched for row in (*parity.post.rows, *parity.end.rows))
    shapes = {shape for part, shape in model.calls if part == "detect"}
    assert {(n, 3, 160, 192) for n in (1, 2, 5)} < shapes
    assert {(1, 3, 160, 160), (1, 3, 160, 224), (1, 3, 224, 160)} < shapes
    assert {shape for part, shape in model.calls if part == "post"} > {(5, 3, 160, 160), (1, 3, 160, 192)}
    assert parity.worst is not None
    assert parity.worst.image is not None
    assert parity.worst.px == 0


@pytest.mark.parametrize(("strides", "first"), [(FINE_STRIDES, 2), (REALTIME_STRIDES, 3)])
def test_raw_outputs_are_measured_by_the_names_and_strides_of_the_models_levels(
    strides: tuple[int, ...], first: int
) -> None:
    artifact = detecting_artifact(strides=strides)
    parity = check(artifact)
    assert parity.passed, parity.failures
    names = [f"{part}_p{level}" for part in ("cls", "ltrb", "ctr") for level in range(first, first + len(strides))]
    assert sorted({row.output for row in parity.raw.rows}) == sorted(names)
    assert [row.output for row in parity.raw.rows][: len(strides)] == names[: len(strides)]
    assert {row.case for row in parity.post.rows} > {"chain of suppressions", "one per level, beyond the edge"}


def test_the_thresholds_of_the_exported_file_are_used(artifact: Artifact) -> None:
    facts = replace(facts_of(artifact), score_threshold=0.2, nms_iou=0.4, max_detections=7)
    model = artifact.build()
    limits = {"score_threshold": 0.2, "nms_iou": 0.4, "max_detections": 7}
    model.config = model.config.model_copy(update=limits)
    parity = prove(artifact, FakeExport(model), facts, pictures=demo_photos(), **SMALL)  # type: ignore[arg-type]
    assert parity.passed, parity.failures
    assert max(row.match.reference for row in parity.end.rows) == 7
    assert not prove(artifact, FakeExport(artifact.build()), facts, pictures=demo_photos(), **SMALL).passed  # type: ignore[arg-type]


def test_only_shapes_that_the_file_accepts_are_used(artifact: Artifact) -> None:
    model = FakeExport(artifact.build(), shape=(3, 160, 192))
    assert prove(artifact, model, facts_of(artifact), pictures=demo_photos()).passed
    assert {shape for _, shape in model.calls} == {(3, 3, 160, 192)}


def test_a_batch_that_would_be_too_large_is_run_at_a_smaller_size(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LARGEST_BATCH", 2 * 160 * 192)
    model = FakeExport(artifact.build())
    assert check(artifact, model, sizes=[(160, 192), (64, 96)], batches=[1, 2, 5]).passed
    ran = {(part, shape[0], shape[2:]) for part, shape in model.calls}
    assert {("detect", 1, (160, 192)), ("detect", 2, (160, 192)), ("detect", 5, (64, 96))} <= ran
    assert {("post", 2, (160, 192)), ("post", 5, (64, 96))} <= ran
    assert not any(batch == 5 and size == (160, 192) for _, batch, size in ran)


def test_a_layer_without_a_subgraph_is_not_measured_and_does_not_fail(artifact: Artifact) -> None:
    parity = check(artifact, FakeExport(artifact.build(), cannot=("raw", "post")))
    assert parity.passed
    assert (parity.raw.skipped, parity.post.skipped, parity.end.skipped) == ("no raw here", "no post here", None)
    assert parity.end.rows


def test_a_missing_detection_is_reported_with_image_and_box(artifact: Artifact) -> None:
    parity = check(artifact, FakeExport(artifact.build(), damage=without_last))
    assert (bool(parity.raw.failures), bool(parity.post.failures), bool(parity.end.failures)) == (False, True, True)
    text = "\n".join(parity.end.failures)
    assert "astronaut.jpg at 160×192, 1 of a batch of 2" in text
    assert "only the reference finds" in text
    assert parity.worst is not None
    assert parity.worst.exported_box is None
    assert parity.worst.px is None
    failures = [text for text in parity.post.failures if "one at 160×192" in text]
    assert any("0 detections instead of 1" in text for text in failures)


def test_a_slightly_moved_box_is_reported_with_the_difference(artifact: Artifact) -> None:
    def moved(found: ModelOutput) -> ModelOutput:
        found.detections.boxes[:, 0, 2] -= 0.15
        return found

    parity = check(artifact, FakeExport(artifact.build(), damage=moved))
    assert any("is 0.15 px off the reference" in text and "allowed 0.05" in text for text in parity.end.failures)
    assert any("only the exported model finds" in text for text in parity.post.failures)
    assert parity.worst is not None
    assert parity.worst.px == pytest.approx(0.15, abs=1e-4)
    assert parity.worst.reference_box is not None
    assert parity.worst.exported_box is not None
    assert check(artifact, FakeExport(artifact.build(), damage=moved), precision="fp16").end.failures == ()


def test_slightly_different_scores_fail(artifact: Artifact) -> None:
    def lower(found: ModelOutput) -> ModelOutput:
        np.multiply(found.detections.scores, 0.999, out=found.detections.scores)
        return found

    parity = check(artifact, FakeExport(artifact.build(), damage=lower))
    assert any("a score differs by" in text for text in parity.end.failures)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("boxes", np.nan, "not finite"),
        ("classes", 3, "classes outside 0…2"),
        ("counts", 101, "are not in 0…100"),
        ("scores", 2.0, "not in descending order"),
    ],
)
def test_malformed_outputs_fail(artifact: Artifact, part: str, value: float, message: str) -> None:
    def broken(found: ModelOutput) -> ModelOutput:
        array = getattr(found.detections, part)
        array[(0, 1)[: array.ndim]] = value
        return found

    parity = check(artifact, FakeExport(artifact.build(), damage=broken))
    assert any(message in text for text in parity.end.failures), parity.end.failures


def test_values_in_padding_slots_fail(artifact: Artifact) -> None:
    def filled(found: ModelOutput) -> ModelOutput:
        detections = found.detections
        return ModelOutput(detections._replace(counts=np.maximum(detections.counts - 1, 0)))

    parity = check(artifact, FakeExport(artifact.build(), damage=filled))
    assert any("should be empty" in text for text in parity.end.failures)


def test_a_runtime_error_is_a_failure_of_its_batch(artifact: Artifact) -> None:
    def small_only(found: ModelOutput) -> ModelOutput:
        if len(found.detections.counts) > 1:
            raise RuntimeError("  \nReshape: shapes do not fit\n  at node 7")
        return found

    parity = check(artifact, FakeExport(artifact.build(), damage=small_only), batches=[1, 2])
    assert parity.end.failures == ("end to end: at 160×192, batch 2: RuntimeError: Reshape: shapes do not fit",)


def test_nms_that_did_not_converge_is_noted_for_synthetic_cases_and_fails_end_to_end(artifact: Artifact) -> None:
    def unsure(found: ModelOutput) -> ModelOutput:
        lost = without_last(found)
        return ModelOutput(lost.detections, np.zeros(len(lost.detections.counts), bool))

    parity = check(artifact, FakeExport(artifact.build(), damage=unsure))
    assert parity.post.failures == ()
    assert "chain of suppressions" in parity.notes[0]
    assert parity.end.failures


def test_wrong_facts_fail(artifact: Artifact) -> None:
    facts = replace(facts_of(artifact), classes=ClassTable(("circle", "triangle", "square"), (1, 2, 3)))
    parity = prove(artifact, FakeExport(artifact.build()), facts, pictures=demo_photos(), **SMALL)  # type: ignore[arg-type]
    assert any("the classes in the file" in text for text in parity.failures)
    facts = replace(facts_of(artifact), conventions=Conventions(point_offset=0.0))
    parity = prove(artifact, FakeExport(artifact.build()), facts, pictures=demo_photos(), **SMALL)  # type: ignore[arg-type]
    assert any("conventions" in text for text in parity.failures)


WRONG = {
    "classes": ClassTable.from_names(["circle", "square", "triangle"]),
    "resize": ResizeRule("letterbox", (160, 192), pad_value=0),
    "conventions": Conventions(point_offset=0.0),
    "threshold": 0.31,
    "class_thresholds": (0.3, 0.3, 0.3),
    "score_threshold": 0.06,
    "nms_iou": 0.5,
    "max_detections": 99,
    "precision": "fp16",
    "winograd": 3,
    "model": {},
    "provenance": {},
    "vectors": "{}",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_fact_that_was_not_written_as_meant_fails(artifact: Artifact, name: str) -> None:
    facts = replace(facts_of(artifact), provenance={"nan": float("nan"), "pair": (1, 2)})
    (failure,) = check(artifact, facts=facts, stored=replace(facts, **{name: WRONG[name]})).failures
    assert failure.startswith(f"facts: {name} in the file is not what was to be written")
    assert name != "nms_iou" or failure.endswith(": 0.5, not 0.6")


def test_facts_that_were_written_and_read_again_are_the_same(artifact: Artifact) -> None:
    facts = replace(facts_of(artifact), provenance={"nan": float("nan"), "pair": (1, 2)}, class_thresholds=(0.1, 0, 1))
    stored = Facts.from_metadata(facts.to_metadata(), where=Path("x.onnx"))
    assert check(artifact, facts=facts, stored=replace(stored, verified=True)).passed


def with_logits_lower_by(artifact: Artifact, difference: float) -> Artifact:
    key = "head.classification_head.cls_logits.bias"
    return replace(artifact, weights={**artifact.weights, key: artifact.weights[key] - difference})


def test_a_reference_without_detections_is_noted(artifact: Artifact) -> None:
    parity = check(with_logits_lower_by(artifact, 100))
    assert parity.passed
    assert parity.worst is None
    assert "found nothing" in parity.notes[0]


def test_int8_needs_detections_to_be_judged_by_since_its_raw_outputs_are_not(artifact: Artifact) -> None:
    assert check(artifact, precision="int8").passed
    for difference in (8, 100):  # all scores below 0.2, and none at all
        parity = check(with_logits_lower_by(artifact, difference), precision="int8")
        assert parity.failures == ["end to end: no detection of 0.2 or more on both sides: nothing to judge"]


def test_int8_is_judged_by_ap_if_available(artifact: Artifact) -> None:
    def best_lost(found: ModelOutput) -> ModelOutput:
        boxes, scores, classes, counts = (part.copy() for part in found.detections)
        left = counts // 3
        for place, (count, few) in enumerate(zip(counts.tolist(), left.tolist(), strict=True)):
            for part, empty in ((boxes, 0), (scores, 0), (classes, -1)):
                part[place, :few] = part[place, count - few : count].copy()
                part[place, few:] = empty
        return ModelOutput(RawDetections(boxes, scores, classes, left))

    def ap(exported: float) -> ApParity:
        return ApParity("cards", 9, {"AP": 0.5}, {"AP": exported})

    model = FakeExport(artifact.build(), damage=best_lost, cannot=("post",))
    assert not check(artifact, model, precision="int8").passed
    assert check(artifact, model, precision="int8", ap=ap(0.492)).passed
    assert any(
        text.startswith("AP: 0.4800 on cards")
        for text in check(artifact, model, precision="int8", ap=ap(0.48)).failures
    )
    assert not check(artifact, model, precision="fp16", ap=ap(0.5)).passed
    assert not check(artifact, ap=ap(0.498)).passed

    low = ApParity("cards", 9, {"AP": 0.09}, {"AP": 0.07})
    assert not check(artifact, model, precision="int8", ap=low).passed
    judged = check(artifact, precision="int8", ap=low)
    assert judged.passed
    assert judged.notes == ("an AP of 0.0900 is too low to judge int8 by; it is judged by matching",)


def test_a_better_ap_is_a_difference_in_float32_only(artifact: Artifact) -> None:
    better, worse = (ApParity("cards", 9, {"AP": 0.5}, {"AP": exported}) for exported in (0.52, 0.48))
    for precision in ("fp16", "bf16", "int8"):
        parity = check(artifact, precision=precision, ap=better)
        assert parity.passed, parity.failures
        assert "the AP is 0.0200 higher than PyTorch's: rounding may help by chance" in parity.notes
        assert "allowed loss" in check(artifact, precision=precision, ap=worse).failures[0]
    for ap in (better, worse):
        assert "allowed difference 0.001" in check(artifact, ap=ap).failures[0]


def test_tolerances_grow_with_lower_precision_and_have_a_reason() -> None:
    raw = [TOLERANCES[name].raw or np.inf for name in ("fp32", "fp16", "bf16", "int8")]
    matched = [TOLERANCES[name].matched for name in ("fp32", "fp16", "bf16", "int8")]
    assert raw == sorted(raw)
    assert matched == sorted(matched, reverse=True)
    assert all(tolerance.why for tolerance in TOLERANCES.values())
    assert [TOLERANCES["fp16"].missing(n) for n in (0, 1, 33, 34, 100)] == [0, 1, 1, 2, 3]
    assert TOLERANCES["fp32"].missing(10_000) == 0


def test_an_unknown_precision_is_refused(artifact: Artifact) -> None:
    with pytest.raises(UsageError, match="fp8"):
        check(artifact, precision="fp8")


def test_progress_reaches_the_total(artifact: Artifact) -> None:
    calls: list[tuple[int, int]] = []
    check(artifact, on_progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total in calls} == {len(calls)}


def test_ap_of_both_is_measured_on_the_same_images(artifact: Artifact, shapes: Path) -> None:
    dataset = read_dataset(shapes)
    detector = PyTorchDetector.from_artifact(artifact, name="a", device="cpu")
    calls: list[tuple[int, int]] = []
    found = ap_parity(detector, detector, dataset, on_progress=lambda *done: calls.append(done))
    assert (found.images, found.difference, found.data) == (4, 0.0, shapes.name)
    assert calls[-1] == (8, 8)


def test_in_an_image_that_cannot_be_read_neither_finds_anything(
    artifact: Artifact, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shapes, tmp_path / "data")
    dataset = read_dataset(tmp_path / "data")
    damaged = dataset.samples[0].image
    damaged.write_bytes(damaged.read_bytes()[:-20])
    detector = PyTorchDetector.from_artifact(artifact, name="a", device="cpu")
    found = ap_parity(detector, detector, dataset)
    assert (found.images, found.difference) == (len(dataset), 0.0)
    assert capsys.readouterr().err.count(damaged.name) == 1


def test_models_that_were_trained_on_tiles_are_measured_with_tiles(artifact: Artifact, shapes: Path) -> None:
    tiled = replace(artifact, provenance={"tile": 40})
    detector, dataset = PyTorchDetector.from_artifact(tiled, name="a", device="cpu"), read_dataset(shapes)
    answers, _ = collect_detections(detector, dataset, tiling=Tiling(40))
    samples = []
    for sample, every in zip(dataset.samples, answers, strict=True):  # what it finds in tiles is the truth
        best = every.best(5)
        nowhere, areas = np.zeros(len(best), bool), box_area(best.boxes)
        samples.append(replace(sample, boxes=best.boxes, classes=best.classes, ignore=nowhere, areas=areas))
    truth = replace(dataset, samples=samples)
    found = ap_parity(detector, detector, truth)
    assert found.reference == found.exported == evaluate(detector, truth, tiling=Tiling(40)).metrics
    assert found.reference["AP"] > evaluate(detector, truth).metrics["AP"] + 0.1
