"""Predictions → files: our JSON document, JSON lines, COCO results, CSV.

Each writer streams: a picture is written when it comes, and nothing is kept but the failures. A file appears under its
name only when it is whole (temporary name in the same folder, flushed, renamed), so a run that fails leaves what was
there before.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TextIO

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Failure, Prediction

Format = Literal["json", "jsonl", "coco", "csv"]


class Writer(Protocol):
    def write(self, answer: Prediction | Failure) -> None: ...


@contextmanager
def open_writer(
    target: Path | TextIO, *, classes: ClassTable, model: str, format: Format | None = None
) -> Iterator[Writer]:
    """A writer to a file or to an open text stream (stdout, never closed here).

    format: `json` is the document of `fcos predict --json`; `jsonl` one such result a line; `coco` the results list of
    COCO evaluators; `csv` one detection a row. None: by the suffix of `target` (.json, .jsonl, .csv). classes: the
    table that detections index. model: named in the JSON document. Raises UsageError; FcosError if writing fails.
    """
    chosen = format or _format_of(target)
    place: AbstractContextManager[IO[str]] = atomic_write(target) if isinstance(target, Path) else nullcontext(target)
    with place as stream:
        writer = _WRITERS[chosen](stream, classes, model)
        yield writer
        writer.end()


def _format_of(target: Path | TextIO) -> Format:
    suffixes: dict[str, Format] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
    suffix = target.suffix.lower() if isinstance(target, Path) else ""
    if suffix not in suffixes:
        raise UsageError(
            f"cannot tell the format from the suffix {suffix!r}", where=target, remedy="use .json, .jsonl or .csv"
        )
    return suffixes[suffix]


def _failure(answer: Failure) -> dict[str, str]:
    return {"source": str(answer.source), "error": answer.error.what}


def _result(answer: Prediction, classes: ClassTable) -> dict[str, Any]:
    return {
        "source": str(answer.source),
        **_moment(answer),
        "width": answer.width,
        "height": answer.height,
        "detections": answer.detections.to_json(classes),
    }


def _moment(answer: Prediction) -> dict[str, Any]:
    """Of a frame: its number, from 0, and its time in seconds."""
    moment = answer.moment
    return {} if moment is None else {"frame": moment.number, "time": round(float(moment.time), 4)}


class _Base:
    def __init__(self, stream: IO[str], classes: ClassTable, model: str) -> None:
        self.stream, self.classes, self.model = stream, classes, model
        self.written = 0
        self.begin()

    def begin(self) -> None: ...
    def write(self, answer: Prediction | Failure) -> None: ...
    def end(self) -> None: ...

    def item(self, row: dict[str, Any]) -> None:
        """One more element of a JSON list."""
        self.stream.write(("," if self.written else "") + "\n" + json.dumps(row))
        self.written += 1


class _Json(_Base):
    def begin(self) -> None:
        self.failed: list[dict[str, str]] = []
        self.stream.write(f'{{"schema_version": 1, "model": {json.dumps(self.model)}, "results": [')

    def write(self, answer: Prediction | Failure) -> None:
        if isinstance(answer, Failure):
            self.failed.append(_failure(answer))
        else:
            self.item(_result(answer, self.classes))

    def end(self) -> None:
        self.stream.write(f'\n], "failed": {json.dumps(self.failed)}}}\n')


class _JsonLines(_Base):
    def write(self, answer: Prediction | Failure) -> None:
        row = _failure(answer) if isinstance(answer, Failure) else _result(answer, self.classes)
        self.stream.write(json.dumps({"schema_version": 1, **row}) + "\n")
        self.stream.flush()  # whoever reads the pipe sees each picture at once


class _Coco(_Base):
    """`image_id` is the picture's place in the input, from 1, failures counted; `file_name` its path.

    A frame is a picture, and has `frame` and `time` besides.
    """

    def begin(self) -> None:
        self.place = 0
        self.stream.write("[")

    def write(self, answer: Prediction | Failure) -> None:
        self.place += 1
        if isinstance(answer, Failure):
            return
        found = answer.detections
        for (x1, y1, x2, y2), score, index in zip(
            found.boxes.tolist(), found.scores, found.classes.tolist(), strict=True
        ):
            self.item(
                {
                    "image_id": self.place,
                    "file_name": str(answer.source),
                    **_moment(answer),
                    "category_id": self.classes.ids[index],
                    "bbox": [round(v, 4) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "score": float(str(score)),  # the shortest decimal of this float32: rounding would make ties
                }
            )

    def end(self) -> None:
        self.stream.write("\n]\n")


class _Csv(_Base):
    """`frame` and `time` are empty for pictures."""

    def begin(self) -> None:
        self.rows = csv.writer(self.stream, lineterminator="\n")
        columns = ["source", "x1", "y1", "x2", "y2", "score", "class", "category_id", "frame", "time"]
        self.rows.writerow(columns)

    def write(self, answer: Prediction | Failure) -> None:
        if isinstance(answer, Failure):
            return
        place = _moment(answer)
        for row in answer.detections.to_json(self.classes):
            facts = [row[key] for key in ("score", "class", "category_id")]
            self.rows.writerow([str(answer.source), *row["box"], *facts, place.get("frame"), place.get("time")])


_WRITERS: dict[Format, type[_Base]] = {"json": _Json, "jsonl": _JsonLines, "coco": _Coco, "csv": _Csv}
