"""Images of a report: their boxes, which are in pixels of the annotated size, and their captions."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.evaluate.coco import score
from fcos_cli.evaluate.report.metrics import compute_metrics
from fcos_cli.evaluate.report.pictures import MAX_BOXES, suspect_figure, worst_image_figure
from fcos_cli.evaluate.report.suspects import suspects, worst_images
from tests.evaluate.report.test_metrics import A, computed
from tests.evaluate.samples import ONE, TWO, found, sample

OBJECT = [400, 300, 600, 450]


def picture(figure: str) -> Image.Image:
    """The first image embedded in a figure."""
    data = re.search(r"base64,([^\"]+)", figure)
    assert data
    return Image.open(io.BytesIO(base64.b64decode(data[1])))


def test_boxes_lie_on_a_file_of_another_size_than_annotated(tmp_path: Path) -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)  # a quarter of the annotated 640 x 480
    pixels[75:113, 100:150] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    truth = replace(sample([[0, 0, 50, 50]]), image=tmp_path / "a.png")
    detections = [found([OBJECT], [0.9])]
    thresholds = np.full(2, 0.5, np.float32)
    metrics = compute_metrics(score(detections, [truth], TWO), detections, [truth], TWO, thresholds=thresholds)

    whole = worst_image_figure(worst_images(metrics, count=1)[0], metrics, truth, key="k")
    assert 'viewBox="0 0 640 480"' in whole
    assert 'width="640" height="480"' in whole
    assert picture(whole).size == (160, 120)

    (missing,) = [suspect for suspect in suspects(metrics, [truth], count=5) if suspect.kind == "missing"]
    crop = suspect_figure(missing, metrics, truth)
    view = re.search(r'viewBox="(\d+) (\d+) (\d+) (\d+)"', crop)
    assert view
    left, top, width, height = map(int, view.groups())
    shown = picture(crop)
    assert shown.width == round(width / 4)
    center = (np.array([(400 + 600) / 2, (300 + 450) / 2]) - (left, top)) / (width, height) * shown.size
    assert shown.getpixel(tuple(center.astype(int).tolist())) > (200, 200, 200)
    assert shown.getpixel((0, 0)) < (50, 50, 50)


@pytest.mark.parametrize("count", [MAX_BOXES, MAX_BOXES + 1])
def test_a_caption_says_if_only_the_best_detections_are_drawn(tmp_path: Path, count: int) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(file)
    samples = [sample([A], image=str(file))]
    metrics = computed([found([[i, 200, i + 9, 209] for i in range(count)], [0.6] * count)], samples, ONE)
    (row,) = worst_images(metrics, count=1)
    drawn = worst_image_figure(row, metrics, samples[0], key="a")
    assert drawn.count('class="box found') == MAX_BOXES
    assert ("; the 60 best are drawn</figcaption>" in drawn) == (count > MAX_BOXES)
