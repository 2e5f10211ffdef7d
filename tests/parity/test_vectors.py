"""Test vectors: what is stored is read back, and damaged ones are one error that names the place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import ModelError
from fcos_cli.parity.matching import ImageDetections
from fcos_cli.parity.vectors import Vector, read_vectors, write_vectors
from tests.runtime.onnx_files import FACTS

WHERE = Path("x.onnx")
EXPECTED = ImageDetections(
    np.array([[0, 1.25, 40, 30], [2, 3, 20.5, 16]], np.float32),
    np.array([0.75, 1 / 3], np.float32),
    np.array([2, 0]),
)
PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
OTHERS = ImageDetections(np.array([[0, 1, 40, 30]], np.float32), np.array([0.25], np.float32), np.array([2]))
VECTOR = Vector("a.jpg", PICTURE, (32, 48), EXPECTED, OTHERS, cuts=(0.1,))


def test_what_is_written_is_read_back() -> None:
    (read,) = read_vectors(replace(FACTS, vectors=write_vectors([VECTOR])), where=WHERE)
    assert (read.name, read.size) == ("a.jpg", (32, 48))
    assert (read.picture == PICTURE).all()
    for part, written in zip((*read.expected, *read.others), (*EXPECTED, *OTHERS), strict=True):
        np.testing.assert_allclose(part, written, rtol=1e-6)
        assert part.dtype == written.dtype
    assert read.cuts == (0.1,)


def test_a_file_without_vectors_has_none() -> None:
    assert read_vectors(FACTS, where=WHERE) == []


def test_the_picture_is_in_the_corner_and_the_rest_is_padding() -> None:
    images = VECTOR.images(ResizeRule("letterbox", (32, 48), pad_value=7))
    assert (images.shape, images.dtype) == ((1, 3, 32, 48), np.uint8)
    assert (images[0, :, :30, :40] == PICTURE.transpose(2, 0, 1)).all()
    assert (images[0, :, 30:] == 7).all()
    assert (images[0, :, :, 40:] == 7).all()
    assert VECTOR.inside.tolist() == [[30, 40]]


def test_padding_of_fractions_makes_a_float_input() -> None:
    images = VECTOR.images(ResizeRule("letterbox", (32, 48), pad_value=(1.5, 2.0, 3.0)))
    assert images.dtype == np.float32
    assert images[0, :, 31, 47].tolist() == [1.5, 2, 3]


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["pictures"][0].update(changes)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another version": (lambda c: c.update(version=2), "version 2"),
    "no pictures": (lambda c: c.update(pictures=[]), "0 pictures"),
    "no list": (lambda c: c.update(pictures=3), "not iterable"),
    "others of another kind": (change(others={}), "six numbers"),
    "a missing key": (lambda c: c["pictures"][0].pop("png"), "'png' is missing"),
    "no base64": (change(png="&&&"), "damaged"),
    "no picture": (change(png="AAAA"), "damaged"),
    "a picture larger than its input": (change(size=[16, 16]), "larger than the network input"),
    "an input of gigabytes": (change(size=[32768, 32768]), "too large"),
    "an input of no pixels": (change(size=[0, 16]), "not a whole number"),
    "a class of no name": (change(detections=[[0, 0, 1, 1, 0.5, 3]]), "class is not from 0 to 2"),
    "half a class": (change(detections=[[0, 0, 1, 1, 0.5, 0.5]]), "class is not from 0 to 2"),
    "five numbers": (change(detections=[[0, 0, 1, 1, 0.5]]), "six numbers"),
    "a score of NaN": (change(detections=[[0, 0, 1, 1, float("nan"), 0]]), "not a number"),
    "a box beyond float32": (change(detections=[[0, 0, 1e300, 1, 0.5, 0]]), "not a number"),
    "a number of 400 digits": (change(detections=[[0, 0, 10**400, 1, 0.5, 0]]), "not a number"),
    "more detections than fit": (change(detections=[[0, 0, 1, 1, 0.5, 0]] * 101), "more than the limit"),
    "cuts of text": (change(cuts=["a"]), "not a number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_damaged_vectors_are_one_error_that_names_file_and_remedy(name: str) -> None:
    damage, words = WRONG[name]
    content = json.loads(write_vectors([VECTOR]))
    damage(content)
    with pytest.raises(ModelError, match=words) as caught:
        read_vectors(replace(FACTS, vectors=json.dumps(content)), where=WHERE)
    assert "x.onnx, vectors" in str(caught.value.where)
    assert caught.value.remedy


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_truncated_vectors_are_one_error(share: float) -> None:
    text = write_vectors([VECTOR])
    with pytest.raises(ModelError, match="cannot be read"):
        read_vectors(replace(FACTS, vectors=text[: int(share * len(text))]), where=WHERE)


def test_a_truncated_picture_is_an_error_that_names_it() -> None:
    content = json.loads(write_vectors([VECTOR, VECTOR]))
    content["pictures"][1]["png"] = content["pictures"][1]["png"][:2000]
    with pytest.raises(ModelError, match="damaged") as caught:
        read_vectors(replace(FACTS, vectors=json.dumps(content)), where=WHERE)
    assert "pictures[1]" in str(caught.value.where)


def test_candidates_are_the_detections_and_the_others() -> None:
    assert VECTOR.candidates.classes.tolist() == [2, 0, 2]
    assert VECTOR.candidates.boxes.shape == (3, 4)
