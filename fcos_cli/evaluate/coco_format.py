"""Ground truth and detections in the form COCO evaluators expect: in memory, and detections as a file.

In memory, images are numbered by the rank of their `image_id`, and classes by their index. Only the order of the ids
can affect an evaluator, which uses it to break ties between equal scores, so the metrics equal those of the original
ids. Annotations and detections are numbered 1, 2, 3, … in the order of the samples and of the boxes within each sample.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.data.samples import Sample
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections


def image_numbers(samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
    """Return each sample's image number, 1, 2, 3, … in the order of the image ids [len(samples)]."""
    order = sorted(range(len(samples)), key=lambda i: samples[i].image_id)
    numbers = np.empty(len(samples), np.int64)
    numbers[order] = np.arange(1, len(samples) + 1)
    return numbers


def coco_ground_truth(samples: Sequence[Sample], classes: ClassTable) -> dict[str, Any]:
    """Return the samples as a COCO document."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sample in zip(image_numbers(samples).tolist(), samples, strict=True):
        images.append({"id": number, "width": sample.width, "height": sample.height, "file_name": sample.image.name})
        rows = zip(
            _xywh(sample.boxes).tolist(),
            sample.classes.tolist(),
            sample.ignore.tolist(),
            sample.areas.tolist(),
            strict=True,
        )
        for box, index, ignore, area in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # not 0, which pycocotools treats as unmatched
                    "image_id": number,
                    "category_id": index,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(ignore),
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(classes.names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_detections(detections: Sequence[Detections], samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    """Return rows of (image number, x, y, w, h, score, class index): float64 [N, 7]."""
    rows = [
        np.column_stack([np.full(len(found), number), _xywh(found.boxes), found.scores, found.classes])
        for number, found in zip(image_numbers(samples), detections, strict=True)
    ]
    return np.concatenate(rows).astype(np.float64, copy=False)


def write_results(file: Path, detections: Sequence[Detections], samples: Sequence[Sample], classes: ClassTable) -> None:
    """Write COCO results with the data's own image and category ids, in full precision.

    Only COCO data has image ids of its own, so each row also has the path of the image as `file_name`. A COCO evaluator
    that reads the annotation file and these results gives the metrics of `fcos eval`. detections[i] belong to
    samples[i], in the indices of `classes`. Raises UsageError if the file cannot be written.
    """
    rows = [
        {
            "image_id": sample.image_id,
            "file_name": str(sample.image),
            "category_id": classes.ids[index],
            "bbox": box,
            "score": score,
        }
        for sample, found in zip(samples, detections, strict=True)
        for box, score, index in zip(
            _xywh(found.boxes).tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        )
    ]
    with atomic_write(file) as stream:
        stream.write("[" + ",".join("\n" + json.dumps(row) for row in rows) + "\n]\n")


def _xywh(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    xywh = boxes.astype(np.float64).reshape(-1, 4)
    xywh[:, 2:] -= xywh[:, :2]
    return xywh
