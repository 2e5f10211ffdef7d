"""What `fcos eval` was told to require of its models: gates and promises, from the command line to the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcos_cli.console import say, warn
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, GateError, UsageError
from fcos_cli.evaluate import gates
from fcos_cli.evaluate.coco import CocoResult, thresholds_for
from fcos_cli.evaluate.compare import Comparison
from fcos_cli.evaluate.gates import Gate, Verdict
from fcos_cli.evaluate.matches import AT_IOU_50, Matches, match_detections, run_evaluator
from fcos_cli.evaluate.promise import make
from fcos_cli.evaluate.promise.make import Outcome
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.open import model_file
from fcos_cli.runtime.results import Detections
from fcos_cli.runtime.rewrite import check_copy


@dataclass(frozen=True)
class Demands:
    """gates: of `--require` and `--not-worse`. wishes: of `--promise`. source: the model file to copy to `out` with the
    promised thresholds; None: nothing is written. lowest: `--score`, below which there are no detections.
    """

    gates: Sequence[Gate] = ()
    wishes: Sequence[Gate] = ()
    source: Path | None = None
    out: Path | None = None
    lowest: float = 0.0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.gates or self.wishes)


@dataclass(frozen=True)
class Answers:
    """What became of the demands."""

    verdicts: Sequence[Verdict] = ()
    outcomes: Sequence[Outcome] = ()

    def __bool__(self) -> bool:
        """Whether there were any."""
        return bool(self.verdicts or self.outcomes)

    def show(self) -> None:
        """Print a line for each."""
        for verdict in self.verdicts:
            say(f"{'met' if verdict.met else 'not met'}: {verdict.text}", style=None if verdict.met else "red")
        for outcome in self.outcomes:
            say(str(outcome), style=None if outcome.promise else "red")
            if outcome.promise is not None:
                say(f"  {outcome.promise.details()}")

    def to_json(self) -> dict[str, Any]:
        """Return `gates` and `promises` of the `fcos eval --json` document, where there are any."""
        document: dict[str, Any] = {}
        if self.verdicts:
            document["gates"] = [verdict.to_json() for verdict in self.verdicts]
        if self.outcomes:
            document["promises"] = [outcome.to_json() for outcome in self.outcomes]
        return document

    def failure(self) -> GateError | None:
        """One error that names all that was not met; None if everything was."""
        errors = [error for error in (gates.failure(self.verdicts), make.failure(self.outcomes)) if error]
        if len(errors) < 2:
            return errors[0] if errors else None
        return GateError(
            "; ".join(error.what for error in errors),
            details=[line for error in errors for line in error.details],
            remedy=errors[1].remedy,
        )


def parse_demands(
    require: Sequence[str],
    not_worse: Sequence[str],
    promise: Sequence[str],
    *,
    out: Path | None,
    models: Sequence[str],
    score: float | None = None,
    backend: str | None = None,
    device: str = "auto",
) -> Demands:
    """Parse the options before anything is opened. score, backend, device: as for `open_detector`.

    Raises UsageError for what cannot be required of these models, ModelError if there is no file to copy to `out`.
    """
    found = [gates.parse_gate("require", text) for text in require]
    found += [gates.parse_gate("not-worse", text) for text in not_worse]
    wishes = make.parse_wishes(promise)
    if not_worse and len(models) < 2:
        raise UsageError("--not-worse compares two models", remedy="use fcos eval OLD NEW DATA --not-worse MARGIN")
    if wishes and len(models) > 1:
        raise UsageError("--promise takes one model", remedy="use fcos eval MODEL DATA --promise METRIC=VALUE")
    if out is not None and not wishes:
        raise UsageError("--out needs --promise", where=out, remedy="--save writes the detections, --report the report")
    source = None
    if out is not None:
        source = model_file(models[0], backend=backend, device=device)
        check_copy(source, out)
    return Demands(found, wishes, source, out, score or 0.0)


def check_demands(demands: Demands, dataset: Dataset, detector: Detector) -> None:
    """Raise UsageError, before anything is evaluated, for demands that the classes or `--score` do not allow, DataError
    if images are absent, and warn of promises about training images. dataset: all images of the split. detector: the
    last one.
    """
    data, model = dataset.classes, detector.facts.classes
    gates.check_classes([*demands.gates, *demands.wishes], data, model)
    _check_score(demands, data, detector.facts)
    if demands:
        for finding in absent_images(dataset):
            raise DataError(
                f"requirements and promises apply to all images of the data set; {finding.message}",
                where=finding.place,
                remedy=f"{finding.remedy}, or remove them from the annotations",
            )
    if demands.wishes:
        make.check_images(dataset, detector.facts)


def _check_score(demands: Demands, data: ClassTable, model: Facts) -> None:
    thresholds = thresholds_for(model, data)
    for gate in (gate for gate in demands.gates if gate.needs_matches):
        shown = thresholds if gate.class_name is None else thresholds[data.index_of_name[gate.class_name]]
        if np.float32(demands.lowest) > np.min(shown):
            what = f"--score {demands.lowest:g} leaves out boxes that fcos predict shows, which {gate.metric} counts"
            raise UsageError(what, where=gate.option, remedy="omit --score, or use a lower one")


def absent_images(dataset: Dataset) -> list[Finding]:
    """What the reader noted of images that it left out because their files are missing or unreadable."""
    return [finding for finding in dataset.findings if finding.id in ("missing-image", "unreadable-image")]


@dataclass(frozen=True)
class Judge:
    """Answers the demands about one model: the last of the command line."""

    demands: Demands
    dataset: Dataset
    detector: Detector
    result: CocoResult
    detections: list[Detections] = field(repr=False)
    tiling: Tiling | None = None

    @cached_property
    def matches(self) -> Matches:
        evaluator = run_evaluator(self.detections, self.dataset.samples, self.dataset.classes, **AT_IOU_50)
        return match_detections(evaluator, self.detections, self.dataset.samples)

    def answer(self, comparison: Comparison | None = None) -> Answers:
        """Make all promises; judge all gates, at the thresholds that will be written. comparison: for `--not-worse`."""
        demands = self.demands
        outcomes = self._promises() if demands.wishes else []
        required = [gate for gate in demands.gates if gate.rule == "require"]
        verdicts = gates.judge_metrics(
            required,
            self.result,
            self.dataset.classes,
            matches=self.matches if any(gate.needs_matches for gate in required) else None,
            thresholds=self.thresholds(outcomes),
        )
        if comparison is not None:
            relative = [gate for gate in demands.gates if gate.rule == "not-worse"]
            verdicts += gates.judge_comparison(relative, comparison)
        return Answers(verdicts, outcomes)

    def thresholds(self, outcomes: Sequence[Outcome]) -> npt.NDArray[np.float32]:
        """The threshold of each class of the data set: the one to be written, else the model's own. float32 [C]"""
        facts = self.detector.facts
        if self.demands.out is not None and all(outcome.promise for outcome in outcomes):
            facts = make.with_promised_thresholds(facts, outcomes)
        return thresholds_for(facts, self.dataset.classes)

    def _promises(self) -> list[Outcome]:
        lowest = max(self.detector.facts.score_threshold, self.demands.lowest)
        return make.make_promises(
            self.demands.wishes, self.matches, self.dataset, self.detector, lowest=lowest, tiling=self.tiling
        )

    def finish(self, answers: Answers) -> None:
        """Write the model with the promised thresholds if everything was met. Raises GateError if not."""
        out, source = self.demands.out, self.demands.source
        if error := answers.failure():
            what = error.what if out is None else f"{error.what}, so {out} was not written"
            raise GateError(what, where=self.detector.name, details=error.details, remedy=error.remedy)
        if source is not None and out is not None:
            make.write_model(self.detector, source, out, answers.outcomes)
            say(f"model: {out}")
            made = {str(outcome.promise) for outcome in answers.outcomes}
            for promise in self.detector.facts.promises:
                if str(promise) not in made:
                    warn(f"{out} no longer records {promise}: name all promises in one command")
