"""A worker: holds the model, and turns partitions into parts.

Ray Data makes one in each process of its pool and calls it with numbers of partitions. Pictures are opened ahead of the
network by the pipeline of `fcos predict` itself, so the results are the same.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.errors import DataError, FcosError, ModelError, UsageError
from fcos_cli.predict.cluster.job import JobFolder
from fcos_cli.predict.cluster.listing import Entry, Listing
from fcos_cli.predict.cluster.model import ModelOptions
from fcos_cli.predict.cluster.parquet import COLUMN, values
from fcos_cli.predict.cluster.places import Place, StoredAddress, StoredFile, StoreError
from fcos_cli.predict.cluster.schema import Counts, row_of, to_parquet
from fcos_cli.predict.pipeline import Failure, Input, predict
from fcos_cli.predict.selection import report_thresholds
from fcos_cli.predict.sources.address import is_address
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.runtime.detector import Detector

SHOWN = 3
"""Errors of pictures that a part reports in full."""
MAX_ATTEMPTS = 5
"""How often a partition is begun at most: one of its pictures may be killing the workers."""
PAUSES = (1.0, 4.0)
"""Seconds before a partition that failed because of a disk, the network or a store is tried again."""
FETCHED = 8
"""Pictures of an object store that a worker fetches at a time."""


@dataclass(frozen=True)
class Task:
    """What all workers of a job are given. roots: places of the sources. base: the folder that paths are relative to.
    threads: of a worker's network; None = all of the machine's. openers: threads that open pictures ahead of it.
    """

    out: Place
    roots: Sequence[Place]
    base: str
    column: str | None
    options: ModelOptions
    threads: int | None
    openers: int = 1


@dataclass(frozen=True)
class Report:
    """What a worker reports about a partition. errors: the first of its pictures. fatal: an error that ends the job."""

    number: int
    counts: Counts
    errors: list[FcosError]
    fatal: FcosError | None = None

    def to_json(self) -> str:
        fatal = None if self.fatal is None else _to_row(self.fatal)
        return json.dumps([self.number, self.counts, [_to_row(error) for error in self.errors], fatal])

    @classmethod
    def from_json(cls, text: str) -> Report:
        number, counts, errors, fatal = json.loads(text)
        return cls(number, Counts(*counts), [_from_row(row) for row in errors], fatal and _from_row(fatal))


class Attempts:
    """Counts how often each partition was begun. It has a process of its own, which outlives the workers."""

    def __init__(self) -> None:
        self._counts = Counter[int]()

    def begin(self, number: int) -> int:
        """Count one more attempt; return the total."""
        self._counts[number] += 1
        return self._counts[number]


class Worker:
    """Made by Ray Data. model: one reference to `ModelFiles` in Ray's object store, in a list so that it stays a
    reference. attempts: the actor `Attempts`.
    """

    def __init__(self, task: Task, model: list[Any], attempts: Any) -> None:
        import ray

        self.task, self.job, self._attempts = task, JobFolder(task.out), attempts
        self._detector: Detector | FcosError
        try:
            self._detector = ray.get(model[0]).open(task.options, threads=task.threads)
        except FcosError as error:  # raised here, it would be buried in the reports of Ray
            self._detector = error

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> dict[str, list[str]]:
        """batch: `number` [N] of partitions. Returns `report` [N], each of which `Report.from_json` reads."""
        return {"report": [self._report(number).to_json() for number in batch["number"].tolist()]}

    def _report(self, number: int) -> Report:
        try:
            if self._attempt(number) > MAX_ATTEMPTS:
                what = f"workers died {MAX_ATTEMPTS} times while processing the same images"
                where = f"{self.listing.partition(number)[0].source} or one after it"
                remedy = "give the workers more memory; check whether the image is damaged"
                raise FcosError(what, where=where, remedy=remedy)
            for pause in PAUSES:
                with suppress(OSError, StoreError):  # it may be over in a moment
                    return Report(number, *self.predict(number))
                time.sleep(pause)
            return Report(number, *self.predict(number))
        except FcosError as error:
            return Report(number, Counts(), [], error)
        except Exception as error:  # Ray would wrap it so often that its text is lost
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"a worker failed ({type(error).__name__}: {error})"
            return Report(number, Counts(), [], FcosError(what, where=f"{place.filename}:{place.lineno}"))

    def _attempt(self, number: int) -> int:
        """The number of this attempt, from 1; 0 if the counting process is gone with its node."""
        import ray

        try:
            return int(ray.get(self._attempts.begin.remote(number)))
        except ray.exceptions.RayError:
            return 0

    def predict(self, number: int) -> tuple[Counts, list[FcosError]]:
        """Predict the pictures of a partition and write its part. Returns its counts and its first errors."""
        if isinstance(self._detector, FcosError):
            raise self._detector
        entries, options = self.listing.partition(number), self.task.options
        facts = self._detector.facts
        results = predict(
            self._detector,
            self._inputs(entries),
            batch=options.batch,
            workers=FETCHED if any(is_address(entry.source) for entry in entries) else self.task.openers,
            threshold=report_thresholds(facts, score=options.score, chosen=options.chosen),
            tiling=options.tiling,
            limit=options.max_detections,
        )
        rows, errors, failed, noted, lost = [], list[FcosError](), 0, 0, 0
        for result in results:
            rows.append(row_of(result, facts.classes))
            if isinstance(result, Failure):
                failed += 1
                errors += [result.error] if failed <= SHOWN else []
                lost += isinstance(result.error, StoreError)
            else:
                noted += result.note is not None
        if lost == len(rows):  # rows of errors would not be tried again when the store is back
            what = f"the store returned none of {lost} images: {errors[0].what}"
            remedy = "check that the store answers, and that you have access to it"
            raise StoreError(what, where=errors[0].where, remedy=remedy)
        counts = Counts(len(rows), failed, noted)
        self.job.part(number).write(to_parquet(rows, counts))
        return counts, errors

    @cached_property
    def listing(self) -> Listing:
        """The list of the job, which stays open. Raises DataError."""
        return Listing(self.job.listing)

    def _inputs(self, entries: list[Entry]) -> Iterator[Input]:
        for entry in entries:
            if entry.error is not None:
                yield Failure(_source(entry.source), DataError(entry.error, where=entry.source))
            elif entry.first is not None:
                yield from self._rows(entry, entry.first)
            elif is_address(entry.source):
                yield Frame(_source(entry.source), StoredFile(self._place(entry)))
            else:
                yield Frame(Path(entry.source), Path(self.task.base, entry.source))

    def _rows(self, entry: Entry, first: int) -> Iterator[Input]:
        """The pictures in rows of a Parquet file. If reading breaks off, the rest are failures: of the store, if the
        file cannot even be opened again, or else of the damaged file.
        """
        row, end = first, first + entry.rows
        try:
            for value in values(self._place(entry), self.task.column or COLUMN, first=first, rows=entry.rows):
                name = f"{entry.source}:{row}"
                if value is None:
                    yield Failure(_source(name), DataError("this row holds no picture", where=name))
                else:
                    yield Frame(_source(name), value)
                row += 1
        except DataError as error:
            kind = StoreError if self._is_lost(entry) else DataError
            names = (f"{entry.source}:{number}" for number in range(row, end))
            yield from (Failure(_source(name), kind(error.what, where=name)) for name in names)

    def _is_lost(self, entry: Entry) -> bool:
        try:
            self._place(entry).open().close()
        except DataError as error:
            return isinstance(error, StoreError)
        return False

    def _place(self, entry: Entry) -> Place:
        root = self.task.roots[entry.root]
        if is_address(entry.source):
            return root.beside(entry.source.partition("://")[2])
        return Place(entry.source, root.system, os.path.join(self.task.base, entry.source))  # noqa: PTH118 - text


def _source(name: str) -> Path | StoredAddress:
    return StoredAddress(name) if is_address(name) else Path(name)


def _to_row(error: FcosError) -> list[Any]:
    return [error.exit_code, error.what, error.where, error.remedy]


def _from_row(row: list[Any]) -> FcosError:
    code, what, where, remedy = row
    kinds = {kind.exit_code: kind for kind in (FcosError, UsageError, DataError, ModelError)}
    return kinds.get(code, FcosError)(what, where=where, remedy=remedy)
