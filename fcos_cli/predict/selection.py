"""Which detections are reported (classes by name, and the lowest score of each class), and which are needed for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.errors import unknown_name
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.exported import check_score
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header


def parse_classes(texts: Sequence[str], classes: ClassTable) -> set[int] | None:
    """Return the indices of the classes that `texts` name; None, which means all, if there are no texts.

    A text is a name, a data-set id (`category_id`), or several of them separated by commas. Raises UsageError, naming
    the nearest name, for one that the table does not have.
    """
    if not texts:
        return None
    chosen = set[int]()
    for text in texts:
        names = [text] if text in classes.index_of_name else text.split(",")  # a name may contain a comma
        chosen.update(_index(name.strip(), classes) for name in names)
    return chosen


def _index(name: str, classes: ClassTable) -> int:
    if name in classes.index_of_name:
        return classes.index_of_name[name]
    if name.isdecimal() and int(name) in classes.index_of_id:
        return classes.index_of_id[int(name)]
    raise unknown_name("class of the model", name, classes.names, where="--classes")


def report_thresholds(facts: Facts, *, score: float | None, chosen: Collection[int] | None) -> npt.NDArray[np.float32]:
    """Return the lowest score to report for each class, float32 [C]; infinity for classes that are not chosen.

    score: for all classes; None = the model's own thresholds. chosen: class indices; None = all.
    """
    thresholds = np.array(facts.thresholds, np.float32)
    if score is not None:
        thresholds[:] = score
    if chosen is not None:
        thresholds[[index for index in range(len(thresholds)) if index not in chosen]] = np.inf
    return thresholds


def candidate_score(model: Path, *, score: float | None, label_score: float | None) -> float | None:
    """Return the score to open a model file with, if boxes below the reported ones are wanted: to track, to review.

    None, the model's own, unless a lower one is asked for. score, label_score: of --score and --label-score. Raises
    UsageError if they are lower than an exported model can go, ModelError if the file is not a model.
    """
    facts = read_header(model).facts
    if model.suffix.lower() != ".safetensors":
        check_score(score, facts, model)
        check_score(label_score, facts, model, flag="--label-score")
    asked = min((value for value in (score, label_score) if value is not None), default=1.0)
    return asked if asked < facts.score_threshold else None
