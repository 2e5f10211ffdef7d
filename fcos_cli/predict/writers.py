"""Output formats for predictions: a JSON document, JSON lines, COCO results, CSV and MOTChallenge.

Writers stream: each result is written as it comes, and only failures are kept in memory. Files are written atomically
(under a temporary name in the same folder, then renamed), so a failed run leaves an existing file unchanged.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TextIO

from fcos_cli.atomic import atomic_write
from fcos_cli.console import visible
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Failure, Prediction

Format = Literal["json", "jsonl", "coco", "csv", "mot"]


class Writer(Protocol):
    def write(self, result: Prediction | Failure) -> None: ...


@contextmanager
def open_writer(
    target: Path | TextIO, *, classes: ClassTable, model: str, format: Format, tracked: bool = False
) -> Iterator[Writer]:
    """Open a writer to a file or to an open text stream (for example stdout), which is not closed.

    format: `json`, the document of `fcos predict --json`; `jsonl`, one result per line; `coco`, the results list that
    COCO evaluators read; `csv`, one detection per row; `mot`, the tracks of one clip as MOTChallenge has them. tracked:
    whether detections have identities, for the columns of CSV. classes: the classes that detections index. model: model
    name in the JSON document. Raises UsageError for a path that cannot be written and a file that is not an earlier
    result, FcosError if writing fails.
    """
    if isinstance(target, Path):
        check_replaceable(target, format)
    output: AbstractContextManager[IO[str]] = atomic_write(target) if isinstance(target, Path) else nullcontext(target)
    with output as stream:
        writer = _WRITERS[format](stream, classes, model, tracked)
        yield writer
        writer.end()


def format_of(target: Path) -> Format:
    """Return the format that the suffix of `target` names. Raises UsageError if it names none."""
    suffixes: dict[str, Format] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
    suffix = target.suffix.lower()
    if suffix not in suffixes:
        remedy = "use .json, .jsonl, .csv, .coco.json or, with --track, .mot.txt"
        raise UsageError(f"unknown output format {suffix!r}", where=target, remedy=remedy)
    return suffixes[suffix]


def check_replaceable(file: Path, format: Format) -> None:
    """Raise UsageError if `file` exists and is not a result in this format: it may be somebody's labels."""
    try:
        if not file.is_file():  # opening a pipe would wait until somebody writes
            return
        with file.open("rb") as stream:
            head = stream.read(64)
    except OSError:
        return  # there is none, or opening it for writing will say why not
    if head and not re.match(_HEADS[format], head):
        raise UsageError(
            "this file exists and is not a result of fcos in this format, so it is not replaced",
            where=file,
            remedy="choose another name, or move the file away",
        )


def _failure(failure: Failure) -> dict[str, str]:
    return {"source": str(failure.source), "error": failure.error.what}


def _prediction(prediction: Prediction, classes: ClassTable) -> dict[str, Any]:
    return {
        "source": str(prediction.source),
        **_moment(prediction),
        "width": prediction.width,
        "height": prediction.height,
        "detections": prediction.detections.to_json(classes),
    }


def _moment(prediction: Prediction) -> dict[str, Any]:
    """Return the number of a frame, from 0, and its time in seconds; empty for an image."""
    moment = prediction.moment
    return {} if moment is None else {"frame": moment.number, "time": round(float(moment.time), 4)}


class _Base:
    def __init__(self, stream: IO[str], classes: ClassTable, model: str, tracked: bool) -> None:  # noqa: FBT001
        self.stream, self.classes, self.model, self.tracked = stream, classes, model, tracked
        self.item_count = 0
        self.begin()

    def begin(self) -> None: ...
    def write(self, result: Prediction | Failure) -> None: ...
    def end(self) -> None: ...

    def write_item(self, item: dict[str, Any]) -> None:
        """Write an element of a JSON list."""
        self.stream.write(("," if self.item_count else "") + "\n" + json.dumps(item))
        self.item_count += 1


class _Json(_Base):
    """Begins with the first result or at the end: a run that fails before that prints nothing, not half a document."""

    def begin(self) -> None:
        self.failed: list[dict[str, str]] = []

    def write(self, result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            self.failed.append(_failure(result))
        else:
            self._write_head()
            self.write_item(_prediction(result, self.classes))

    def _write_head(self) -> None:
        if not self.item_count:
            self.stream.write(f'{{"schema_version": 1, "model": {json.dumps(self.model)}, "results": [')

    def end(self) -> None:
        self._write_head()
        self.stream.write(f'\n], "failed": {json.dumps(self.failed)}}}\n')


class _JsonLines(_Base):
    def write(self, result: Prediction | Failure) -> None:
        row = _failure(result) if isinstance(result, Failure) else _prediction(result, self.classes)
        self.stream.write(json.dumps({"schema_version": 1, **row}) + "\n")
        self.stream.flush()  # a reader of the pipe gets each result at once


class _Coco(_Base):
    """`image_id` counts the inputs from 1, including failures and frames; `file_name` is the path.

    These are not the ids of an annotation file: `fcos eval DATA --save` writes results with those.

    Detections in frames also have `frame` and `time`, and with --track their identity as `track_id`.
    """

    def begin(self) -> None:
        self.image_id = 0
        self.stream.write("[")

    def write(self, result: Prediction | Failure) -> None:
        self.image_id += 1
        if isinstance(result, Failure):
            return
        detections = result.detections
        ids = [None] * len(detections) if detections.ids is None else detections.ids.tolist()
        for (x1, y1, x2, y2), score, index, identity in zip(
            detections.boxes.tolist(), detections.scores, detections.classes.tolist(), ids, strict=True
        ):
            self.write_item(
                {
                    "image_id": self.image_id,
                    "file_name": str(result.source),
                    **_moment(result),
                    "category_id": self.classes.ids[index],
                    "bbox": [round(v, 4) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "score": float(str(score)),  # shortest decimal of the float32; rounding would create ties
                    **({"track_id": identity} if identity else {}),
                }
            )

    def end(self) -> None:
        self.stream.write("\n]\n")


class _Csv(_Base):
    """`frame` and `time` are empty for images, `id` for what is not tracked (yet).

    Text is written as `cell` says; numbers stay numbers.
    """

    def begin(self) -> None:
        self.rows = csv.writer(self.stream, lineterminator="\n")
        columns = ["source", "x1", "y1", "x2", "y2", "score", "class", "category_id", "frame", "time"]
        self.rows.writerow([*columns, "id"] if self.tracked else columns)

    def write(self, result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            return
        moment = _moment(result)
        for row in result.detections.to_json(self.classes):
            values = [row["score"], cell(row["class"]), row["category_id"]]
            identity = [row["id"]] if self.tracked else []
            self.rows.writerow(
                [cell(str(result.source)), *row["box"], *values, moment.get("frame"), moment.get("time"), *identity]
            )


class _Mot(_Base):
    """Tracks of one clip as MOTChallenge has them (arXiv:1504.01942): frame, id, left, top, width, height, score and
    three times -1. Frames count from 1, pixels from 0. Boxes without identity are left out, and so are classes.
    """

    def write(self, result: Prediction | Failure) -> None:
        if isinstance(result, Failure) or result.moment is None or result.detections.ids is None:
            return
        found = result.detections
        rows = zip(found.boxes.tolist(), found.scores.tolist(), result.detections.ids.tolist(), strict=True)
        for (x1, y1, x2, y2), score, identity in rows:
            if identity:
                box = ",".join(f"{value:.2f}" for value in (x1, y1, x2 - x1, y2 - y1))
                self.stream.write(f"{result.moment.number + 1},{identity},{box},{score:.4f},-1,-1,-1\n")


def cell(text: str) -> str:
    """The text of a cell. Spreadsheets take what begins with `=`, `+`, `-`, `@` or a tab for a formula, and run it.

    Such text gets an apostrophe in front, and so does text that begins with one: `text.removeprefix("'")` restores
    both. Control characters are escaped (`\\t`); bytes of a file name that are not UTF-8 stay as they are.
    """
    text = re.sub("[^\ud800-\udfff]+", lambda part: visible(part[0]), text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'")) else text


_HEADS: dict[Format, bytes] = {
    "json": rb'\{"schema_version": 1, "model": ',
    "jsonl": rb'\{"schema_version": ',
    "coco": rb'\[\n(\{"image_id": |\])',
    "csv": rb"source,x1,y1,x2,y2,score,",
    "mot": rb"\d+,\d+,-?\d+\.\d\d,",
}
"""How files in each format begin, as patterns."""

_WRITERS: dict[Format, type[_Base]] = {"json": _Json, "jsonl": _JsonLines, "coco": _Coco, "csv": _Csv, "mot": _Mot}
