"""Recording test vectors: what the reference finds, at the size and with the limits of the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.export.options import ExportOptions
from fcos_cli.export.tensorrt.profile import Profile, Shape
from fcos_cli.export.vectors import vector_size
from fcos_cli.model.conventions import Conventions
from fcos_cli.parity.record import record_vectors
from fcos_cli.parity.vectors import read_vectors, write_vectors
from fcos_cli.parity.verify import verify
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from tests.parity.fakes import detecting_artifact
from tests.parity.test_vectors import WHERE


@pytest.mark.parametrize("size", [None, (64, 96), (320, 256)])
@pytest.mark.parametrize("clip", ["input", "picture"])
def test_pytorch_passes_with_what_it_recorded(size: tuple[int, int] | None, clip: str) -> None:
    artifact = detecting_artifact(conventions=Conventions(clip=clip))
    facts = facts_of(artifact)
    vectors = record_vectors(artifact, facts, size=size)
    assert [vector.size for vector in vectors] == [size or (160, 192)] * 3
    assert {vector.picture.shape[0] <= 160 and vector.picture.shape[1] <= 192 for vector in vectors} == {True}
    assert min(len(vector.expected.scores) for vector in vectors) > 0
    stored = read_vectors(replace(facts, vectors=write_vectors(vectors)), where=WHERE)
    assert verify(PyTorchDetector.from_artifact(artifact, name="x", device="cpu"), stored).passed


def test_the_limits_are_those_of_the_file() -> None:
    artifact = detecting_artifact()
    facts = replace(facts_of(artifact), max_detections=5)
    vectors = record_vectors(artifact, facts)
    assert [len(vector.expected.scores) for vector in vectors] == [5, 5, 5]
    for vector in vectors:  # only what comes near the last place
        assert (vector.others.scores >= vector.expected.scores.min() - 1e-3).all()
        known = {tuple(box) for box in vector.expected.boxes.tolist()}
        assert not known & {tuple(box) for box in vector.others.boxes.tolist()}


def test_pixels_are_stored_with_32_values() -> None:
    artifact = detecting_artifact()
    assert not any((vector.picture % 8).any() for vector in record_vectors(artifact, facts_of(artifact)))


def test_a_box_in_a_wrong_place_has_no_excuse_though_it_overlaps() -> None:
    artifact = detecting_artifact()
    facts = facts_of(artifact)
    vectors = record_vectors(artifact, facts)
    moved = [replace(v, expected=v.expected._replace(boxes=v.expected.boxes + np.float32(0.5))) for v in vectors]
    result = verify(PyTorchDetector.from_artifact(artifact, name="x", device="cpu"), moved)
    assert any("do not match" in failure for failure in result.failures)


def test_an_input_of_many_megapixels_has_none() -> None:
    artifact = detecting_artifact()
    assert record_vectors(artifact, facts_of(artifact), size=(4096, 4096)) == []


def test_the_size_of_the_inputs_is_one_that_the_file_takes() -> None:
    facts = facts_of(detecting_artifact())  # 160 x 192
    profile = Profile(*(Shape(1, 320, 416),) * 3)
    assert vector_size(ExportOptions(), facts, profile=None) is None
    assert vector_size(ExportOptions(size=(640, 640)), facts, profile=None) == (640, 640)
    assert vector_size(ExportOptions(format="trt"), facts, profile=None) == (160, 192)
    assert vector_size(ExportOptions(format="trt-rtx"), facts, profile=profile) == (320, 416)
