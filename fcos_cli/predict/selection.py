"""Which detections are reported: classes by name, and the lowest score of each class."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from fcos_cli.errors import unknown_name
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts


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
