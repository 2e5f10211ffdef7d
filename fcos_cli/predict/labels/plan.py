"""What `--label` and the options that belong to it ask for, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos_cli.atomic import check_writable
from fcos_cli.errors import UsageError, unknown_name
from fcos_cli.predict.labels.coco import CocoSet
from fcos_cli.predict.labels.labelme import LabelmeSet
from fcos_cli.predict.labels.review import REVIEW, check_review
from fcos_cli.predict.labels.target import LabelSet, new_or_existing
from fcos_cli.predict.labels.voc import VocSet
from fcos_cli.predict.labels.yolo import YoloSet

FORMATS: dict[str, Callable[[Path, Any], LabelSet]] = {
    "yolo": YoloSet,
    "coco": CocoSet,
    "voc": VocSet,
    "labelme": LabelmeSet,
}


@dataclass(frozen=True)
class LabelPlan:
    """What to write. folder: of the data set. score: lowest score of a label, None: the model's thresholds. link:
    do not copy pictures."""

    folder: Path
    target: LabelSet
    score: float | None = None
    link: bool = False


def plan_labels(
    format: str | None,
    folder: Path,
    *,
    score: float | None = None,
    merge: bool = False,
    link: bool = False,
    drawn: bool = False,
    tracked: bool = False,
    save: Sequence[Path] = (),
) -> LabelPlan | None:
    """Return the plan, or None without `--label`. Nothing is written.

    drawn: whether drawings or crops are to be written to the folder too. tracked: whether objects are to be tracked;
    labels do not keep identities. save: other files to write, which must not be among the labels. Raises UsageError if
    options contradict each other or the folder cannot be used, see `target.new_or_existing`.
    """
    if format is None:
        for given, flag in ((score is not None, "--label-score"), (merge, "--merge"), (link, "--link")):
            if given:
                raise UsageError(f"{flag} requires --label", remedy="add --label, for example --label coco")
        return None
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS, where="--label")
    if drawn:
        raise UsageError(
            "--label cannot be combined with --viz, --crops, --explain and --targets, whose pictures would end up in "
            "the data set",
            remedy="run fcos predict once for each, with different --out",
        )
    if tracked:
        raise UsageError("--label cannot be combined with --track: labels have no identities", remedy="omit --track")
    for file in save:
        if file.resolve().is_relative_to(folder.resolve()):
            what = "with --label, --out holds the data set and nothing else, so --save cannot write there"
            raise UsageError(what, where=file, remedy="choose a file in another folder")
    check_writable(folder, folder=True)
    source = new_or_existing(format, folder, merge=merge)
    check_review(folder / REVIEW)
    return LabelPlan(folder, FORMATS[format](folder, source), score, link)
