"""`verify` runs the test vectors of a file and judges them like the parity check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fcos_cli.errors import ModelError
from fcos_cli.parity.matching import ImageDetections
from fcos_cli.parity.vectors import Vector
from fcos_cli.parity.verify import vectors_of, verify
from fcos_cli.runtime.results import RawDetections
from tests.parity.test_vectors import EXPECTED, VECTOR, WHERE
from tests.runtime.onnx_files import FACTS


@dataclass
class FakeDetector:
    """Finds `found` in every image. Records the shapes of its inputs."""

    found: ImageDetections = EXPECTED
    precision: str = "fp32"
    error: Exception | None = None
    name: str = "fake"
    backend: str = "fake"
    device: str = "cpu"
    facts: Any = FACTS

    def __post_init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, images: Any, sizes: Any = None) -> RawDetections:
        self.calls.append(images.shape)
        assert sizes.shape == (len(images), 2)
        if self.error:
            raise self.error
        count, batch = len(self.found.scores), len(images)
        raw = RawDetections(
            np.zeros((batch, 5, 4), np.float32),
            np.zeros((batch, 5), np.float32),
            np.full((batch, 5), -1),
            np.full(batch, count),
        )
        for part, values in zip(raw, self.found, strict=False):
            part[:, :count] = values
        return raw


def moved(pixels: float) -> ImageDetections:
    return EXPECTED._replace(boxes=EXPECTED.boxes + np.float32(pixels))


def test_the_same_detections_pass_one_by_one_and_as_a_batch() -> None:
    detector = FakeDetector()
    result = verify(detector, [VECTOR, replace(VECTOR, size=(64, 64)), replace(VECTOR, size=(64, 64))])
    assert result.passed
    assert detector.calls == [(1, 3, 32, 48), (1, 3, 64, 64), (1, 3, 64, 64), (2, 3, 64, 64)]
    assert len(result.end.rows) == 5
    assert (result.precision, result.backend) == ("fp32", "fake")


@pytest.mark.parametrize(("stored", "computed"), [("fp16", "fp32"), ("fp32", "fp16"), ("fp16", "mixed")])
def test_the_coarser_precision_of_file_and_computation_is_judged(stored: str, computed: str) -> None:
    # OpenVINO computes in float32 with weights that were rounded to half
    shifted = EXPECTED._replace(scores=EXPECTED.scores + np.float32(3e-3))
    detector = FakeDetector(shifted, precision=computed, facts=replace(FACTS, precision=stored))
    result = verify(detector, [VECTOR])
    assert result.precision == "fp16"
    assert result.passed, result.failures


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (moved(0.1), "px off the reference"),
        (moved(9), "2 of 2 detections do not match"),
        (EXPECTED._replace(scores=EXPECTED.scores - np.float32(0.01)), "a score differs by 0.01"),
        (EXPECTED._replace(classes=np.array([1, 0])), "1 of 2 detections do not match"),
        (EXPECTED.take(np.array([0])), "only the reference finds a"),
        (EXPECTED.take(np.array([1, 0])), "scores are not in descending order"),
        (EXPECTED._replace(classes=np.array([7, 0])), "classes outside"),
    ],
)
def test_other_detections_fail(found: ImageDetections, words: str) -> None:
    result = verify(FakeDetector(found), [VECTOR])
    assert not result.passed
    assert any(words in failure for failure in result.failures), result.failures
    assert all("end to end" in failure for failure in result.failures)


def test_the_tolerance_is_that_of_the_precision_that_runs() -> None:
    for precision, passes in (("fp32", False), ("bf16", True), ("fp16", True)):
        assert verify(FakeDetector(moved(0.2), precision=precision), [VECTOR]).passed is passes
    mixed = FakeDetector(moved(0.2), precision="mixed", facts=replace(FACTS, precision="int8"))
    assert verify(mixed, [VECTOR]).precision == "int8"


def test_an_error_of_the_runtime_is_a_failure() -> None:
    result = verify(FakeDetector(error=RuntimeError("no such kernel\nat 0x1")), [VECTOR])
    assert result.failures == ["end to end: a.jpg, batch 1: RuntimeError: no such kernel"]


def test_large_inputs_are_not_put_together() -> None:
    detector = FakeDetector()
    verify(detector, [replace(VECTOR, size=(2048, 1536))] * 2)
    assert [shape[0] for shape in detector.calls] == [1, 1]


def test_pictures_in_which_nothing_was_found_are_noted() -> None:
    nothing = Vector("a.jpg", VECTOR.picture, VECTOR.size)
    result = verify(FakeDetector(EXPECTED.take(np.array([], int))), [nothing])
    assert result.passed
    assert result.notes == ("the reference found nothing in any picture",)


def test_an_int8_file_without_sure_detections_has_nothing_to_be_judged_by() -> None:
    int8 = replace(FACTS, precision="int8")
    assert verify(FakeDetector(precision="int8", facts=int8), [VECTOR]).passed
    doubtful = EXPECTED._replace(scores=np.array([0.19, 0.1], np.float32))
    result = verify(FakeDetector(doubtful, precision="int8", facts=int8), [replace(VECTOR, expected=doubtful)])
    assert result.failures == ["end to end: no detection of 0.2 or more on both sides: nothing to judge"]


def test_a_file_without_vectors_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="no test vectors") as caught:
        vectors_of(FACTS, where=WHERE)
    assert "fcos export" in str(caught.value.remedy)
    assert "inputs of up to 4 megapixels" in str(caught.value.remedy)
