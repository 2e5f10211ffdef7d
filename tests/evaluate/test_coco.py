"""COCO metrics, compared with values worked out by hand and with pycocotools on the original ids."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcos_cli.data.geometry import Geometry, ResizeRule
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate import coco
from fcos_cli.evaluate.coco import METRICS, CocoResult, collect_detections, evaluate, score
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections, RawDetections
from tests.evaluate.samples import ONE, found, sample
from tests.predict.test_tiles import ColourDetector

EVALUATORS = ("hotcoco", "pycocotools")


# --- worked out by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_perfect_detection_scores_one_and_an_empty_size_bucket_minus_one(evaluator):
    result = score([found([[0, 0, 20, 20]])], [sample([[0, 0, 20, 20]])], ONE, evaluator=evaluator)
    assert tuple(result.metrics) == METRICS
    assert result.metrics["AP"] == pytest.approx(1)
    assert result.metrics["APs"] == pytest.approx(1)
    assert result.metrics["APm"] == result.metrics["APl"] == -1
    (row,) = result.per_class
    assert (row.name, row.category_id, row.truths, row.best_threshold, row.best_f1) == ("cat", 7, 1, 0.5, 1.0)


def test_two_threads_leave_stdout_as_it_was(monkeypatch):
    """Without a lock, the second begins before the first ends, and restores what the first had put in place."""
    stdout, run, began, ended = sys.stdout, coco._run_hotcoco, [], threading.Event()
    second_began = threading.Event()

    def slow(*given):
        began.append(1)
        if len(began) == 1:
            second_began.wait(0.3)
        else:
            second_began.set()
            ended.wait(10)
        return run(*given)

    def work():
        score([found([[0, 0, 20, 20]])], [sample([[0, 0, 20, 20]])], ONE)
        ended.set()

    monkeypatch.setattr(coco, "_run_hotcoco", slow)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is stdout
    assert len(began) == 2


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_half_the_boxes_found_gives_half_the_recall(evaluator):
    truth = [[0, 0, 20, 20], [100, 100, 120, 120]]
    result = score([found(truth[:1])], [sample(truth)], ONE, evaluator=evaluator)
    assert result.metrics["AR100"] == pytest.approx(0.5)
    assert result.metrics["AP50"] == pytest.approx(51 / 101)  # recall points 0.00 … 0.50 have precision 1


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_iou_of_0_6_matches_at_thresholds_up_to_0_6(evaluator):
    result = score([found([[0, 0, 60, 100]])], [sample([[0, 0, 100, 100]])], ONE, evaluator=evaluator)
    assert result.metrics["AP50"] == pytest.approx(1)
    assert result.metrics["AP75"] == 0
    assert result.metrics["AP"] == pytest.approx(0.3)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_best_threshold_is_where_f1_peaks(evaluator):
    # True positives at 0.9 and 0.6, false positives at 0.8 and 0.3, two ground-truth boxes:
    # F1 = 2·hits / (detections kept + 2): 0.9 → 2/3, 0.8 → 2/4, 0.6 → 4/5, 0.3 → 4/6.
    truth = [[0, 0, 20, 20], [100, 100, 120, 120]]
    detections = found([truth[0], [300, 0, 320, 20], truth[1], [400, 0, 420, 20]], [0.9, 0.8, 0.6, 0.3])
    (row,) = score([detections], [sample(truth)], ONE, evaluator=evaluator).per_class
    assert row.best_threshold == pytest.approx(0.6)
    assert row.best_f1 == pytest.approx(0.8)
    assert len(detections.above(np.float32(row.best_threshold))) == 3


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_best_threshold_never_splits_equal_scores(evaluator):
    # One true and two false positives have score 0.5: F1 = 2/(3+1). The true positive cannot be kept alone.
    detections = found([[0, 0, 20, 20], [300, 0, 320, 20], [400, 0, 420, 20]], [0.5, 0.5, 0.5])
    (row,) = score([detections], [sample([[0, 0, 20, 20]])], ONE, evaluator=evaluator).per_class
    assert row.best_f1 == pytest.approx(0.5)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_ignored_box_is_neither_found_nor_missed(evaluator):
    truth = sample([[0, 0, 20, 20], [100, 100, 200, 200]], ignore=[False, True])
    detections = found([[0, 0, 20, 20], [110, 110, 140, 140], [150, 150, 190, 190]], [0.4, 0.9, 0.8])
    result = score([detections], [truth], ONE, evaluator=evaluator)
    assert result.metrics["AP"] == pytest.approx(1)
    assert result.per_class[0].truths == 1
    assert result.per_class[0].best_f1 == 1.0
    assert result.per_class[0].best_threshold == pytest.approx(0.4)


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize(("boxes", "expected"), [([], -1.0), ([[0, 0, 20, 20]], 0.0)])
def test_without_detections_ap_is_zero_or_minus_one_without_ground_truth(evaluator, boxes, expected):
    result = score([found([])], [sample(boxes)], ONE, evaluator=evaluator)
    assert result.metrics["AP"] == result.per_class[0].AP == result.per_class[0].AP50 == expected
    assert result.per_class[0].best_threshold is None
    assert result.per_class[0].best_f1 == (0.0 if boxes else None)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_without_ground_truth_metrics_are_minus_one(evaluator):
    result = score([found([[0, 0, 20, 20]])], [sample([])], ONE, evaluator=evaluator)
    assert set(result.metrics.values()) == {-1.0}
    assert result.per_class[0].best_threshold is None


def test_without_images_metrics_are_minus_one():
    assert set(score([], [], ONE).metrics.values()) == {-1.0}


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_scoring_writes_nothing_to_stdout_or_stderr(evaluator, capfd):
    truth = sample([[0, 0, 20, 20], [5, 5, 9, 9]], areas=[400, 0])
    score([found([[0, 0, 20, 20]])], [truth], ONE, evaluator=evaluator)
    assert capfd.readouterr() == ("", "")


def test_json_has_the_documented_keys():
    document = score([found([[0, 0, 20, 20]])], [sample([[0, 0, 20, 20]])], ONE).to_json()
    assert list(document["metrics"]) == list(METRICS)
    assert document["images"] == 1
    assert set(document["per_class"][0]) >= {"name", "category_id", "AP", "AP50", "best_threshold", "truths"}


def test_an_unknown_evaluator_is_a_usage_error():
    with pytest.raises(UsageError, match="hotcoco or pycocotools"):
        score([found([])], [sample([])], ONE, evaluator="lvis")


def test_detections_and_samples_must_have_the_same_length():
    with pytest.raises(DataError, match="1 detection results for 0 images"):
        score([found([])], [], ONE)


# --- reference: pycocotools with the original ids, independent of the module under test -------------------------------


def reference(detections: list[Detections], samples: list[Sample], classes: ClassTable):
    """Return the 12 metrics, and AP and AP50 by class name."""
    annotations, results = [], []
    for detected, truth in zip(detections, samples, strict=True):
        for box, index, ignore, area in zip(truth.boxes, truth.classes, truth.ignore, truth.areas, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": classes.ids[index],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                    "iscrowd": int(ignore),
                }
            )
        for box, value, index in zip(detected.boxes, detected.scores, detected.classes, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            results.append(
                {
                    "image_id": truth.image_id,
                    "category_id": classes.ids[index],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(value),
                }
            )
    document = {
        "images": [{"id": s.image_id, "width": s.width, "height": s.height} for s in samples],
        "annotations": annotations,
        "categories": classes.to_json(),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = document
        known.createIndex()
        coco_eval = COCOeval(known, known.loadRes(results), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    by_class = {}
    for k, category_id in enumerate(coco_eval.params.catIds):
        name = classes.names[classes.index_of_id[int(category_id)]]
        for key, values in (
            ("AP", coco_eval.eval["precision"][:, :, k, 0, 2]),
            ("AP50", coco_eval.eval["precision"][0, :, k, 0, 2]),
        ):
            valid = values[values > -1]
            by_class[name, key] = valid.mean() if valid.size else -1.0
    return coco_eval.stats, by_class


def scene(seed: int, *, images=12, kinds=4, most=12, noise=6.0, levels=None):
    """Return random ground truth of all sizes, and jittered, duplicate and false detections in random order."""
    rng = np.random.default_rng(seed)
    samples, detections = [], []
    for image_id in rng.choice(10_000, images, replace=False).tolist():
        count = int(rng.integers(0, most))
        corner, side = rng.uniform(0, 400, (count, 2)), rng.choice([12.0, 60.0, 200.0], (count, 1))
        boxes = np.hstack([corner, corner + side * rng.uniform(0.5, 1.5, (count, 2))])
        labels, ignore = rng.integers(0, kinds, count), rng.random(count) < 0.1
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1) * rng.uniform(0.4, 1, count)
        samples.append(sample(boxes, labels, ignore=ignore, areas=areas, image_id=image_id))
        near = np.repeat(boxes, 2, 0) + rng.normal(0, noise, (2 * count, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        wild = rng.uniform(0, 400, (5, 2))
        all_boxes = np.vstack([near, np.hstack([wild, wild + rng.uniform(5, 100, (5, 2))])])
        kinds_found = np.concatenate([np.repeat(labels, 2), rng.integers(0, kinds, 5)])
        values = rng.random(len(all_boxes)) if levels is None else rng.integers(1, levels, len(all_boxes)) / levels
        keep = rng.random(len(all_boxes)) < 0.8
        order = np.argsort(-values[keep], kind="stable")
        detections.append(found(all_boxes[keep][order], values[keep][order], kinds_found[keep][order]))
    return detections, samples


def assert_both_evaluators_agree_with_reference(detections, samples, classes):
    stats, by_class = reference(detections, samples, classes)
    thresholds = {}
    for evaluator in EVALUATORS:
        result = score(detections, samples, classes, evaluator=evaluator)
        np.testing.assert_allclose(list(result.metrics.values()), stats, rtol=0, atol=1e-9, err_msg=evaluator)
        for row in result.per_class:
            assert pytest.approx(by_class[row.name, "AP"], abs=1e-9) == row.AP
            assert pytest.approx(by_class[row.name, "AP50"], abs=1e-9) == row.AP50
        thresholds[evaluator] = [(r.best_threshold, r.best_f1, r.truths) for r in result.per_class]
    assert thresholds["hotcoco"] == thresholds["pycocotools"]


FOUR = ClassTable(("dog", "ant", "cow", "bee"), (3, 90, 1, 17))  # sparse, unsorted


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_agree_with_pycocotools(seed):
    assert_both_evaluators_agree_with_reference(*scene(seed), FOUR)


@pytest.mark.parametrize("seed", range(4))
def test_equal_scores_agree_with_pycocotools(seed):
    assert_both_evaluators_agree_with_reference(*scene(seed, levels=3), FOUR)


def test_exact_boxes_agree_with_pycocotools():
    assert_both_evaluators_agree_with_reference(*scene(0, noise=0.0, levels=2), FOUR)


def test_more_than_a_hundred_detections_per_image_agree_with_pycocotools():
    detections, samples = scene(1, images=3, kinds=1, most=150)
    assert max(len(a) for a in detections) > 100
    assert_both_evaluators_agree_with_reference(detections, samples, ONE)


def test_a_class_without_truth_and_one_without_detections_agree_with_pycocotools():
    classes = ClassTable(("a", "b", "c", "never", "unseen"), (5, 0, 2, 1, 44))
    detections, samples = scene(2, kinds=3)
    detections[0] = found(detections[0].boxes, detections[0].scores, np.full(len(detections[0]), 3))  # no such label
    samples[0] = sample(samples[0].boxes, np.full(len(samples[0].boxes), 4), image_id=samples[0].image_id)
    assert_both_evaluators_agree_with_reference(detections, samples, classes)


@pytest.mark.parametrize("ids", [(0, -5, 2**40), (3, 1, 2)])
def test_odd_image_ids_agree_with_pycocotools(ids):
    detections, samples = scene(3, images=3, levels=3)
    samples = [
        sample(s.boxes, s.classes, ignore=s.ignore, areas=s.areas, image_id=i)
        for s, i in zip(samples, ids, strict=True)
    ]
    assert_both_evaluators_agree_with_reference(detections, samples, FOUR)


def test_boxes_of_area_zero_agree_with_pycocotools():
    detections, samples = scene(4, images=4)
    samples = [
        sample(
            s.boxes, s.classes, ignore=s.ignore, areas=np.where(np.arange(len(s.areas)) % 2, s.areas, 0.0), image_id=i
        )
        for i, s in enumerate(samples)
    ]
    assert_both_evaluators_agree_with_reference(detections, samples, FOUR)


def test_images_with_only_crowd_boxes_agree_with_pycocotools():
    detections, samples = scene(5, images=4)
    samples = [sample(s.boxes, s.classes, ignore=np.ones(len(s.boxes)), image_id=i) for i, s in enumerate(samples)]
    assert_both_evaluators_agree_with_reference(detections, samples, FOUR)


def test_detections_without_area_agree_with_pycocotools():
    detections = [found([[0, 0, 0, 0], [0, 0, 20, 20], [5, 5, 5, 25]], [0.9, 0.8, 0.7])]
    assert_both_evaluators_agree_with_reference(detections, [sample([[0, 0, 20, 20]])], ONE)


# --- detector × data set ----------------------------------------------------------------------------------------------


class PlainRule(ResizeRule):
    """No resizing: images are padded together, right and bottom, to keep these tests independent of resizing."""

    def geometry(self, width, height):
        return Same(source=(width, height), resized=(width, height), pad=(0, 0))

    def batch(self, images):
        height, width = (max(i.shape[axis] for i in images) for axis in (0, 1))
        pixels = np.zeros((len(images), 3, height, width), np.uint8)
        for place, image in zip(pixels, images, strict=True):
            place[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
        return pixels, [self.geometry(i.shape[1], i.shape[0]) for i in images]


class Same(Geometry):
    def inverse(self, boxes, *, inclusive=False):
        return boxes


@dataclass
class PixelDetector:
    """Detect one box per image: the red of the first pixel is its side, the green its class."""

    facts: Facts
    name: str = "pixels"
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, images):
        self.shapes.append(images.shape)
        count = len(images)
        boxes = np.zeros((count, 1, 4), np.float32)
        boxes[:, 0, 2:] = images[:, 0, 0, 0, None]
        return RawDetections(
            boxes,
            np.full((count, 1), 0.5, np.float32),
            images[:, 1, 0, :1].astype(np.int64),
            np.ones(count, np.int64),
        )


def painted(folder: Path, sizes, sides, greens) -> list[Sample]:
    samples = []
    for number, ((width, height), side, green) in enumerate(zip(sizes, sides, greens, strict=True)):
        path = folder / f"{number}.png"
        Image.new("RGB", (width, height), (side, green, 0)).save(path)
        box = [[0, 0, side, side]]
        samples.append(sample(box, [green], image_id=number, size=(width, height), image=str(path)))
    return samples


def dataset(samples: list[Sample], classes: ClassTable) -> Dataset:
    return Dataset(samples, classes, "coco", "val", Path("val.json"), "val.json")


AB = ClassTable(("a", "b"), (10, 20))


@pytest.mark.parametrize("mode", ["letterbox", "shortest"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_perfect_detector_scores_one(tmp_path, mode, batch):
    sizes = [(60, 40), (40, 60), (60, 40), (40, 60), (50, 50)]
    samples = painted(tmp_path, sizes, [10, 20, 30, 35, 40], [0, 1, 0, 1, 0])
    detector = PixelDetector(Facts(AB, PlainRule(mode=mode)))
    seen = []
    result = evaluate(detector, dataset(samples, AB), batch=batch, on_progress=lambda *at: seen.append(at))
    assert result.metrics["AP"] == pytest.approx(1)
    assert result.images == 5
    assert result.notes == ()
    assert seen == [(n, 5) for n in range(1, 6)]


def test_images_of_similar_shape_share_a_batch_and_detections_keep_the_sample_order(tmp_path):
    sizes = [(60, 40), (40, 60), (60, 40), (40, 60)]
    samples = painted(tmp_path, sizes, [10, 20, 30, 35], [0, 0, 0, 0])
    detector = PixelDetector(Facts(AB, PlainRule(mode="shortest")))
    detections, _ = collect_detections(detector, dataset(samples, AB), batch=2)
    assert [a.boxes[0, 2] for a in detections] == [10, 20, 30, 35]
    assert sorted(detector.shapes) == [(2, 3, 40, 60), (2, 3, 60, 40)]


def test_images_of_another_size_than_annotated_are_scored_in_annotated_pixels(tmp_path):
    samples = painted(tmp_path, [(60, 40), (40, 60)], [20, 30], [0, 1])
    sizes, ends = ((120, 40), (40, 60)), ([40, 20], [30, 30])  # the first file has half the annotated width
    annotated = [
        replace(one, width=width, height=height, boxes=np.array([[0, 0, *end]], np.float32))
        for one, (width, height), end in zip(samples, sizes, ends, strict=True)
    ]
    data = dataset(annotated, AB)
    detections, _ = collect_detections(PixelDetector(Facts(AB, PlainRule())), data)
    assert [found.boxes.tolist() for found in detections] == [[[0, 0, 40, 20]], [[0, 0, 30, 30]]]
    assert evaluate(PixelDetector(Facts(AB, PlainRule())), data).metrics["AP"] == pytest.approx(1)


def test_classes_are_matched_by_name_and_unmatched_ones_are_noted(tmp_path):
    # Model: a=0, b=1, c=2. Data set: b=0, z=1, a=2.
    model, data = ClassTable(("a", "b", "c"), (1, 2, 3)), ClassTable(("b", "z", "a"), (5, 6, 7))
    samples = painted(tmp_path, [(50, 50)] * 3, [20, 20, 20], [0, 1, 2])
    renamed = [replace(s, classes=np.array([c])) for s, c in zip(samples, [2, 0, 1], strict=True)]
    result = evaluate(PixelDetector(Facts(model, PlainRule())), dataset(renamed, data))
    assert [(r.name, r.category_id, r.AP) for r in result.per_class] == [
        ("b", 5, pytest.approx(1)),
        ("z", 6, 0.0),
        ("a", 7, pytest.approx(1)),
    ]
    assert len(result.notes) == 2
    assert "c" in result.notes[0]
    assert "z" in result.notes[1]


def test_no_class_in_common_is_an_error_that_names_both_tables(tmp_path):
    samples = painted(tmp_path, [(50, 50)], [20], [0])
    with pytest.raises(DataError, match="model: a, b; data set: cat"):
        evaluate(PixelDetector(Facts(AB, PlainRule())), dataset(samples, ONE))


def test_an_unreadable_image_stops_the_evaluation(tmp_path):
    samples = [sample([[0, 0, 5, 5]], image=str(tmp_path / "gone.png"))]
    with pytest.raises(DataError, match="gone"):
        evaluate(PixelDetector(Facts(AB, PlainRule())), dataset(samples, AB))


def test_results_compare_by_value():
    result = score([found([])], [sample([])], ONE)
    assert result == CocoResult(result.metrics, result.per_class, 1, ())


def test_with_on_unreadable_an_unreadable_image_counts_as_having_no_detections(tmp_path):
    samples = [*painted(tmp_path, [(50, 50)], [20], [0]), sample([[0, 0, 5, 5]], image=str(tmp_path / "gone.png"))]
    samples[1] = replace(samples[1], image_id=2)
    unreadable = []
    detector = PixelDetector(Facts(AB, PlainRule()))
    detections, notes = collect_detections(detector, dataset(samples, AB), on_unreadable=unreadable.append)
    assert [failure.source.name for failure in unreadable] == ["gone.png"]
    result = score(detections, samples, AB, notes=notes)
    assert result.images == 2
    assert result.metrics["AR100"] == pytest.approx(0.5)


def test_with_tiles_small_objects_of_large_images_are_found(tmp_path):
    # 20 images of 640 x 640 with a red square of 10 px: 1 px of the input of 64, and 5 px of a tile of 128
    samples = []
    for number in range(20):
        x, y = (37 * number) % 600, (53 * number) % 600
        path = tmp_path / f"{number}.png"
        image = np.full((640, 640, 3), 60, np.uint8)
        image[y : y + 10, x : x + 10] = 255, 0, 0
        Image.fromarray(image).save(path)
        samples.append(sample([[x, y, x + 10, y + 10]], image_id=number, size=(640, 640), image=str(path)))
    data = dataset(samples, AB)
    for tiling, recall in ((None, 0), (Tiling(128), 1)):
        seen = []
        detections, notes = collect_detections(
            ColourDetector(), data, batch=4, tiling=tiling, on_progress=lambda *at, seen=seen: seen.append(at)
        )
        assert (seen[-1], len(seen), notes) == ((20, 20), 20, [])
        assert [len(found) for found in detections] == [recall] * 20
    assert score(detections, samples, AB).metrics["AR100"] > 0.5
