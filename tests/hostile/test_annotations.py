"""Annotation files that are wrong on purpose, in the four formats, read by `read_dataset` and by `fcos eval`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.formats.notes import KINDS
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError, FcosError
from fcos_cli.model.classes import ClassTable
from tests.cli_runner import Fcos
from tests.hostile.coco_cases import COCO, long_string, raw
from tests.hostile.contract import READ, Case, bounded, names, outcome
from tests.hostile.labelme_cases import LABELME
from tests.hostile.voc_cases import VOC
from tests.hostile.yolo_cases import YOLO
from tests.runtime.onnx_files import FACTS, write_onnx

ANNOTATIONS = [*COCO, *YOLO, *VOC, *LABELME]


def check_dataset(dataset: Dataset) -> None:
    """What all later code relies on."""
    assert len(dataset.classes) > 0
    ids = [*dataset.classes.ids, *(sample.image_id for sample in dataset.samples)]
    assert all(-(2**63) <= number < 2**63 for number in ids)
    for sample in dataset.samples:
        size = np.array([sample.width, sample.height])
        assert (size > 0).all()
        assert (size < 2**31).all()
        lower, upper = sample.boxes[:, :2], sample.boxes[:, 2:]
        assert (lower >= 0).all()
        assert (lower < upper).all()
        assert (upper <= size).all()
        assert ((sample.classes >= 0) & (sample.classes < len(dataset.classes))).all()
        assert (sample.areas > 0).all()
        assert np.isfinite(sample.areas).all()


@pytest.mark.parametrize("case", ANNOTATIONS, ids=names(ANNOTATIONS))
def test_annotations(tmp_path: Path, case: Case) -> None:
    """expect: READ without a finding of severity error, the id of a finding, or the text of the error."""
    path = case.make(tmp_path)
    readable = case.expect == READ or case.expect in KINDS
    found = outcome(
        lambda: read_dataset(path, split="all"),
        kind=DataError,
        expect=READ if readable else case.expect,
        folder=tmp_path,
    )
    if isinstance(found, FcosError):
        assert str(tmp_path) in str(found.where)
        return
    check_dataset(found)
    noted = {finding.id: finding for finding in found.findings}
    assert case.expect in noted if case.expect in KINDS else not [f for f in noted.values() if f.severity == "error"]
    assert all(len(finding.place) < 1000 for finding in found.findings)


CHOSEN = (
    "coco-nan",
    "yolo-nan",
    "voc-nan",
    "labelme-nan",
    "coco-100000-levels-in-categories",
    "yolo-yaml-bomb-in-train",
    "voc-billion-laughs",
)
BY_COMMAND = [case for case in ANNOTATIONS if case.name in CHOSEN]


@pytest.mark.parametrize("case", BY_COMMAND, ids=names(BY_COMMAND))
def test_annotations_by_command(tmp_path: Path, fcos: Fcos, case: Case) -> None:
    (tmp_path / "data").mkdir()
    model = write_onnx(
        tmp_path / "model.onnx", facts=replace(FACTS, classes=ClassTable(("cat", "dog", "x"), (1, 2, 3)))
    )
    result = fcos("eval", model, case.make(tmp_path / "data"), "--split", "all")
    assert result.code in ((0, 3) if case.expect == READ or case.expect in KINDS else (3,))
    assert "Traceback" not in result.err
    assert result.err.count("error: ") <= 1


@pytest.mark.slow
def test_a_file_of_200_mb(tmp_path: Path) -> None:
    file = raw(lambda: long_string(200))(tmp_path)
    with bounded(seconds=20):
        check_dataset(read_dataset(file))
