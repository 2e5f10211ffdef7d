"""Which promises can be asked for, and how they become thresholds of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fcos_cli.data.samples import Dataset, fingerprint
from fcos_cli.errors import UsageError
from fcos_cli.evaluate.gates import Gate, check_classes
from fcos_cli.evaluate.matches import AT_IOU_50, match_detections, run_evaluator
from fcos_cli.evaluate.promise.make import (
    CONFIDENCE,
    check_images,
    failure,
    make_promises,
    parse_wishes,
    write_model,
)
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.headers import read_header
from tests.evaluate.samples import TWO, found, sample
from tests.runtime.onnx_files import FACTS, write_onnx

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]
MODEL = replace(FACTS, classes=ClassTable(("bird", "dog", "cat"), (1, 2, 3)))
DETECTOR = SimpleNamespace(facts=MODEL, backend="onnxruntime", precision="fp32")
IMAGES = 120


def made(*texts: str, source=Path("folder/data"), images=IMAGES, right=True):
    """Cats of score 0.9 and dogs of 0.6 in each image, all found; background of score 0.3 as well.

    right: False: the dogs are found elsewhere.
    """
    samples = [sample([A, B], [0, 1], image_id=i) for i in range(images)]
    detections = [found([A, B if right else FAR, FAR], [0.9, 0.6, 0.3], [0, 1, 1])] * images
    matches = match_detections(run_evaluator(detections, samples, TWO, **AT_IOU_50), detections, samples)
    dataset = Dataset(samples, TWO, "coco", "val", source, "")
    return make_promises(parse_wishes(texts), matches, dataset, DETECTOR, lowest=0.05)


def check(split, source=Path("folder/data")):
    """split: "the same file": another split whose images the model was trained on."""
    dataset = Dataset([sample([A])], TWO, "coco", split, source, "")
    trained = {"data": {"name": "data", "sha256": fingerprint(dataset) if split == "the same file" else "other"}}
    check_images(dataset, replace(MODEL, provenance=trained))


def test_one_number_for_all_classes_or_one_for_each():
    assert parse_wishes(["recall=0.95"]) == [Gate("promise", "recall", None, 0.95)]
    both = parse_wishes(["recall:a=b=0.9", "precision:dog=0.5"])
    assert both == [Gate("promise", "recall", "a=b", 0.9), Gate("promise", "precision", "dog", 0.5)]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["recall"], "METRIC=VALUE"),
        (["recal=0.9"], "did you mean recall?"),
        (["AP=0.9"], "use one of precision, recall"),
        (["recall=1"], "not 0 or 1 itself"),
        (["recall=0"], "not 0 or 1 itself"),
        (["recall=95"], "not a number from 0 to 1"),
        (["recall=0.9", "precision=0.9"], "need the same threshold"),
        (["recall:cat=0.9", "precision:cat=0.9"], "need the same threshold"),
        (["recall=0.9", "recall:cat=0.9"], "need the same threshold"),
    ],
)
def test_what_cannot_be_promised_is_refused(texts, words):
    with pytest.raises(UsageError) as caught:
        parse_wishes(texts)
    assert words in str(caught.value)


def test_the_class_must_be_known_to_the_data_and_to_the_model():
    check_classes(parse_wishes(["recall:dog=0.9"]), TWO, MODEL.classes)
    with pytest.raises(UsageError, match="unknown class of the data set 'bird'"):
        check_classes(parse_wishes(["recall:bird=0.9"]), TWO, MODEL.classes)
    with pytest.raises(UsageError, match="unknown class of the model 'cat'"):
        check_classes(parse_wishes(["recall:cat=0.9"]), TWO, ClassTable(("dog",), (1,)))


def test_the_precision_over_all_classes_needs_data_with_all_of_them():
    check_classes(parse_wishes(["recall=0.9"]), TWO, MODEL.classes)
    check_classes(parse_wishes(["precision=0.9"]), TWO, ClassTable(("cat",), (1,)))
    with pytest.raises(UsageError, match="the data set lacks bird") as caught:
        check_classes(parse_wishes(["precision=0.9"]), TWO, MODEL.classes)
    assert caught.value.remedy == "name a class, as in precision:dog"


def test_thresholds_are_as_high_as_the_recall_and_as_low_as_the_precision_allow():
    (everything,) = made("recall=0.9")
    assert everything.promise is not None
    assert everything.promise.threshold == 0.6  # the lowest score of an object that must be found
    assert (everything.promise.images, everything.promise.boxes, everything.promise.most) == (IMAGES, 2 * IMAGES, 2)
    cat, dog = made("recall:cat=0.9", "precision:dog=0.9")
    assert cat.promise is not None
    assert dog.promise is not None
    assert (cat.promise.threshold, cat.promise.measured) == (0.9, 1)
    assert dog.promise.threshold == pytest.approx(0.31)  # above the background
    assert dog.promise.data["name"] == "data"
    assert len(dog.promise.data["sha256"]) == 16
    assert dog.promise.confidence == CONFIDENCE


def test_what_cannot_be_kept_says_what_could_be():
    outcomes = made("recall:cat=0.9", "recall:dog=0.99")
    assert outcomes[0].promise is not None
    assert outcomes[1].promise is None
    assert 0.9 < outcomes[1].highest < 0.99
    error = failure(outcomes)
    assert error is not None
    assert (error.exit_code, error.what) == (6, "1 of 2 promises cannot be made from these images")
    assert error.details == (f"recall:dog=0.99 cannot be promised: at most {outcomes[1].highest:g} can be promised",)
    assert failure(outcomes[:1]) is None


def test_a_hopeless_promise_is_not_blamed_on_the_number_of_images():
    (wrong,) = made("precision:dog=0.99", right=False)
    assert wrong.reason == f"at best 0.0000 is measured, in {IMAGES} images with such boxes"
    assert failure([wrong]).remedy.startswith("train a better model")
    (alone,) = made("recall=0.9", images=1)
    assert alone.reason == "only one image has such boxes"
    assert failure([alone]).remedy == "label more images for the val split"


@pytest.mark.parametrize("split", ["train", "trainval", "all", "the same file"])
def test_images_of_training_are_warned_of(capsys, split):
    check(split)
    assert "they promise nothing about new ones" in capsys.readouterr().err


def test_images_that_were_kept_aside_are_not_warned_of(capsys, tmp_path):
    kept = tmp_path / "test.json"
    kept.touch()
    for split, source in (("val", Path("data")), ("test", Path("data")), ("all", kept)):
        check(split, source)
    assert capsys.readouterr().err == ""


def test_the_data_has_a_name_also_if_it_is_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "birds.v1").mkdir()
    monkeypatch.chdir(tmp_path / "birds.v1")
    assert made("recall=0.9", source=Path())[0].promise.data["name"] == "birds.v1"


def test_several_promises_share_the_error():
    alone, shared = made("recall:dog=0.99")[0].highest, made("recall:dog=0.99", "recall:cat=0.99")[0].highest
    assert shared < alone


def test_the_file_gets_the_thresholds_of_its_own_classes(tmp_path):
    source = write_onnx(tmp_path / "m.onnx", facts=MODEL)
    write_model(DETECTOR, source, tmp_path / "one.onnx", made("recall:dog=0.9"))
    facts = read_header(tmp_path / "one.onnx").facts
    assert (facts.threshold, facts.class_thresholds) == (MODEL.threshold, (0.125, 0.6, 0.125))
    assert [str(promise) for promise in facts.promises] == [
        "recall of dog ≥ 0.9 on new images of the same kind, with 90% confidence"
    ]
    write_model(DETECTOR, source, tmp_path / "all.onnx", made("recall=0.9"))
    facts = read_header(tmp_path / "all.onnx").facts
    assert (facts.threshold, facts.class_thresholds) == (0.6, (0.6, 0.6, 0.6))
