"""The proof: what it measures where, what it lets pass, what it does not, and how it says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.formats import read_dataset
from fcos_cli.errors import UsageError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions
from fcos_cli.parity.prove import ap_parity, prove
from fcos_cli.parity.subgraphs import ModelOutput
from fcos_cli.parity.tolerance import TOLERANCES
from fcos_cli.parity.verdict import ApParity, Parity
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from fcos_cli.runtime.results import RawDetections
from tests.parity.fakes import FakeCuts, seeing_artifact, without_last

SMALL = {"sizes": [(160, 192)], "batches": [2]}


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return seeing_artifact()


def proved(artifact: Artifact, cuts: FakeCuts | None = None, **options: object) -> Parity:
    asked = {**SMALL, "pictures": demo_photos(), **options}
    return prove(artifact, cuts or FakeCuts(artifact.build()), facts_of(artifact), **asked)  # type: ignore[arg-type]


def test_the_reference_agrees_with_itself_everywhere(artifact: Artifact) -> None:
    cuts = FakeCuts(artifact.build())
    parity = prove(artifact, cuts, facts_of(artifact), pictures=demo_photos())
    assert parity.passed
    assert (parity.failures, parity.notes) == ([], ())
    assert all(row.relative == 0 for row in parity.raw.rows)
    assert all(row.match.max_px == 0 and not row.match.alone for row in (*parity.post.rows, *parity.end.rows))
    shapes = {shape for layer, shape in cuts.calls if layer == "detect"}
    assert {(n, 3, 160, 192) for n in (1, 2, 5)} < shapes
    assert {(1, 3, 160, 160), (1, 3, 160, 224), (1, 3, 224, 160)} < shapes
    assert {shape for layer, shape in cuts.calls if layer == "post"} > {(5, 3, 160, 160), (1, 3, 160, 192)}
    assert parity.worst is not None
    assert parity.worst.image is not None
    assert parity.worst.px == 0


def test_thresholds_are_those_of_the_exported_file(artifact: Artifact) -> None:
    facts = replace(facts_of(artifact), score_threshold=0.2, nms_iou=0.4, max_detections=7)
    model = artifact.build()
    limits = {"score_threshold": 0.2, "nms_iou": 0.4, "max_detections": 7}
    model.config = model.config.model_copy(update=limits)
    parity = prove(artifact, FakeCuts(model), facts, pictures=demo_photos(), **SMALL)  # type: ignore[arg-type]
    assert parity.passed, parity.failures
    assert max(row.match.reference for row in parity.end.rows) == 7
    assert not prove(artifact, FakeCuts(artifact.build()), facts, pictures=demo_photos(), **SMALL).passed  # type: ignore[arg-type]


def test_only_shapes_that_the_file_takes_are_tried(artifact: Artifact) -> None:
    cuts = FakeCuts(artifact.build(), shape=(3, 160, 192))
    assert prove(artifact, cuts, facts_of(artifact), pictures=demo_photos()).passed
    assert {shape for _, shape in cuts.calls} == {(3, 3, 160, 192)}


def test_what_cannot_be_cut_is_not_measured_and_does_not_fail(artifact: Artifact) -> None:
    parity = proved(artifact, FakeCuts(artifact.build(), cannot=("raw", "post")))
    assert parity.passed
    assert (parity.raw.skipped, parity.post.skipped, parity.end.skipped) == ("no raw here", "no post here", None)
    assert parity.end.rows


def test_a_lost_detection_is_named_with_picture_and_box(artifact: Artifact) -> None:
    parity = proved(artifact, FakeCuts(artifact.build(), damage=without_last))
    assert (bool(parity.raw.failures), bool(parity.post.failures), bool(parity.end.failures)) == (False, True, True)
    text = "\n".join(parity.end.failures)
    assert "astronaut.jpg at 160×192, 1 of a batch of 2" in text
    assert "only the reference finds" in text
    assert parity.worst is not None
    assert parity.worst.exported_box is None
    assert parity.worst.px is None
    one = [text for text in parity.post.failures if "one at 160×192" in text]
    assert any("0 detections, the reference has 1" in text for text in one)


def test_a_box_that_is_a_little_off_is_named_with_the_difference(artifact: Artifact) -> None:
    def moved(found: ModelOutput) -> ModelOutput:
        found.detections.boxes[:, 0, 2] -= 0.15
        return found

    parity = proved(artifact, FakeCuts(artifact.build(), damage=moved))
    assert any("lies 0.15 px from the reference's" in text and "allowed 0.05" in text for text in parity.end.failures)
    assert any("only the exported model finds" in text for text in parity.post.failures)
    assert parity.worst is not None
    assert parity.worst.px == pytest.approx(0.15, abs=1e-4)
    assert parity.worst.reference_box is not None
    assert parity.worst.exported_box is not None
    assert proved(artifact, FakeCuts(artifact.build(), damage=moved), precision="fp16").end.failures == ()


def test_scores_that_are_a_little_off_fail(artifact: Artifact) -> None:
    def lower(found: ModelOutput) -> ModelOutput:
        np.multiply(found.detections.scores, 0.999, out=found.detections.scores)
        return found

    parity = proved(artifact, FakeCuts(artifact.build(), damage=lower))
    assert any("a score differs by" in text for text in parity.end.failures)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("boxes", np.nan, "not finite"),
        ("classes", 3, "classes outside 0…2"),
        ("counts", 101, "do not lie in 0…100"),
        ("scores", 2.0, "do not descend"),
    ],
)
def test_an_answer_that_breaks_its_promises_fails(artifact: Artifact, part: str, value: float, message: str) -> None:
    def broken(found: ModelOutput) -> ModelOutput:
        array = getattr(found.detections, part)
        array[(0, 1)[: array.ndim]] = value
        return found

    parity = proved(artifact, FakeCuts(artifact.build(), damage=broken))
    assert any(message in text for text in parity.end.failures), parity.end.failures


def test_something_behind_the_last_detection_fails(artifact: Artifact) -> None:
    def filled(found: ModelOutput) -> ModelOutput:
        detections = found.detections
        return ModelOutput(detections._replace(counts=np.maximum(detections.counts - 1, 0)))

    parity = proved(artifact, FakeCuts(artifact.build(), damage=filled))
    assert any("should be empty" in text for text in parity.end.failures)


def test_a_file_that_cannot_run_at_some_size_fails_there(artifact: Artifact) -> None:
    def small_only(found: ModelOutput) -> ModelOutput:
        if len(found.detections.counts) > 1:
            raise RuntimeError("  \nReshape: shapes do not fit\n  at node 7")
        return found

    parity = proved(artifact, FakeCuts(artifact.build(), damage=small_only), batches=[1, 2])
    assert parity.end.failures == ("end to end: at 160×192, batch 2: RuntimeError: Reshape: shapes do not fit",)


def test_an_nms_that_says_it_did_not_finish_is_noted_where_it_is_made_to_fail(artifact: Artifact) -> None:
    def unsure(found: ModelOutput) -> ModelOutput:
        lost = without_last(found)
        return ModelOutput(lost.detections, np.zeros(len(lost.detections.counts), bool))

    parity = proved(artifact, FakeCuts(artifact.build(), damage=unsure))
    assert parity.post.failures == ()
    assert "chain of suppressions" in parity.notes[0]
    assert parity.end.failures


def test_facts_that_are_not_so_fail(artifact: Artifact) -> None:
    facts = replace(facts_of(artifact), classes=ClassTable(("circle", "triangle", "square"), (1, 2, 3)))
    parity = prove(artifact, FakeCuts(artifact.build()), facts, pictures=demo_photos(), **SMALL)  # type: ignore[arg-type]
    assert any("the classes that the file names" in text for text in parity.failures)
    facts = replace(facts_of(artifact), conventions=Conventions(point_offset=0.0))
    parity = prove(artifact, FakeCuts(artifact.build()), facts, pictures=demo_photos(), **SMALL)  # type: ignore[arg-type]
    assert any("conventions" in text for text in parity.failures)


def test_nothing_found_is_noted_because_it_proves_little(artifact: Artifact) -> None:
    weights = {**artifact.weights}
    key = "head.classification_head.cls_logits.bias"
    weights[key] = weights[key] - 100
    parity = proved(replace(artifact, weights=weights))
    assert parity.passed
    assert parity.worst is None
    assert "found nothing" in parity.notes[0]


def test_int8_is_judged_by_ap_where_it_is_known(artifact: Artifact) -> None:
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

    cuts = FakeCuts(artifact.build(), damage=best_lost, cannot=("post",))
    assert not proved(artifact, cuts, precision="int8").passed
    assert proved(artifact, cuts, precision="int8", ap=ap(0.492)).passed
    assert any(
        text.startswith("AP: 0.4800 on cards")
        for text in proved(artifact, cuts, precision="int8", ap=ap(0.48)).failures
    )
    assert not proved(artifact, cuts, precision="fp16", ap=ap(0.5)).passed
    assert not proved(artifact, ap=ap(0.498)).passed


def test_tolerances_grow_with_the_loss_of_precision_and_have_a_reason() -> None:
    raw = [TOLERANCES[name].raw or np.inf for name in ("fp32", "fp16", "bf16", "int8")]
    matched = [TOLERANCES[name].matched for name in ("fp32", "fp16", "bf16", "int8")]
    assert raw == sorted(raw)
    assert matched == sorted(matched, reverse=True)
    assert all(tolerance.why for tolerance in TOLERANCES.values())
    assert [TOLERANCES["fp16"].missing(n) for n in (0, 1, 33, 34, 100)] == [0, 1, 1, 2, 3]
    assert TOLERANCES["fp32"].missing(10_000) == 0


def test_an_unknown_precision_is_refused(artifact: Artifact) -> None:
    with pytest.raises(UsageError, match="fp8"):
        proved(artifact, precision="fp8")


def test_progress_counts_to_the_end(artifact: Artifact) -> None:
    told: list[tuple[int, int]] = []
    proved(artifact, on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


def test_ap_of_both_is_measured_on_the_same_pictures(artifact: Artifact, shapes: Path) -> None:
    dataset = read_dataset(shapes)
    detector = PyTorchDetector.from_artifact(artifact, name="a", device="cpu")
    told: list[tuple[int, int]] = []
    found = ap_parity(detector, detector, dataset, on_progress=lambda *done: told.append(done))
    assert (found.images, found.difference, found.data) == (4, 0.0, shapes.name)
    assert told[-1] == (8, 8)
