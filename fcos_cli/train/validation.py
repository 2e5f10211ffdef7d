"""Validation: COCO metrics of the averaged weights on val, and the files last.safetensors and best.safetensors."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import torch

from fcos_cli import __version__
from fcos_cli.distributed.group import from_main_process
from fcos_cli.errors import FcosError
from fcos_cli.evaluate.coco import CocoResult, collect_detections, score
from fcos_cli.model.artifact import Artifact, load, save
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.pytorch import PyTorchDetector, facts_of
from fcos_cli.runtime.results import Detections
from fcos_cli.runtime.speed import with_cost
from fcos_cli.train.export import remove_export
from fcos_cli.train.run import Run, resize_rule, tiles_of
from fcos_cli.train.signals import share_stop, wait_for_main
from fcos_cli.train.tracking.listener import Evaluation, Row

COOL_DOWN = 0.1
"""Length of the cool-down after `patience` validations without a better AP: a share of the steps done, at most an
epoch."""

ENOUGH = 10
"""Ground-truth boxes of a class on val that its own threshold takes. Of one box, the best would be that box's score."""


def validate(run: Run) -> None:
    """Evaluate the averaged weights on val. A stopped run saves its state as it was before.

    Write last.safetensors, and best.safetensors if the AP is the highest so far. If there was no better AP for
    `patience` validations, set the end of the run to that of a short cool-down. Those of the warm-up do not count until
    something is found.
    """
    progress, started = run.progress, time.monotonic()
    before = dict(vars(progress))
    if run.world.main:
        artifact = build_artifact(run)
        detections, result = _measure(run, artifact)
        row: Row = {
            "kind": "val",
            "step": progress.step,
            "epoch": progress.epoch + 1,
            **{name: round(value, 5) for name, value in result.metrics.items()},
            "seconds": round(time.monotonic() - started, 1),
        }
        artifact = with_result(artifact, result)
        ap, best, earlier, paused = result.metrics["AP"], progress.best, None, time.monotonic()
        if run.val_changed or (run.length.best_unseen and ap < best):
            earlier = _measure_best(run)
            started += time.monotonic() - paused  # later validations take no such time
        if run.val_changed:
            best = -1.0 if earlier is None else earlier.result.metrics["AP"]
        save(run.folder / "last.safetensors", artifact)
        better, too_early = ap >= best, best <= 0 and run.parts.schedule.warming_up
        progress.stale = 0 if ap > best or too_early else progress.stale + 1
        progress.best, progress.val_hash = max(ap, best), run.val_hash
        if better:
            progress.best_epoch = progress.epoch
            _save_best(run, artifact)
        if run.metrics is not None:
            run.metrics.add(row)
        _check_patience(run)
        if earlier is not None:
            run.listener.resumed(earlier)
        run.listener.validated({**row, "best": better}, Evaluation(facts_of(artifact), result, detections, better))
        share_stop(run.stop, done=True)
    else:
        wait_for_main(run.stop)
    if run.stop:  # the validation is repeated
        vars(progress).update(before)
        run.save()
        raise run.stopped()
    vars(progress).update(from_main_process(vars(progress)))
    run.length.validated(time.monotonic() - started)


def _measure(run: Run, artifact: Artifact) -> tuple[list[Detections], CocoResult]:
    """The detections of weights in the images of val, and their metrics. Nothing of the run changes meanwhile."""
    detector = PyTorchDetector.from_artifact(artifact, name="val", device=str(run.device))
    detections, notes = collect_detections(
        detector,
        run.val,
        tiling=tiles_of(run.config),
        on_progress=partial(_on_progress, run),
        on_unreadable=lambda failure: run.listener.note(f"no detections in a val image: {failure.error.brief}"),
    )
    return detections, score(detections, run.val.samples, run.val.classes, notes=notes)


def _measure_best(run: Run) -> Evaluation | None:
    """Evaluate the best weights of an earlier session; None if their file cannot be used.

    Of other val data, they store the new metrics and thresholds.
    """
    try:
        artifact = load(run.folder / "best.safetensors")
    except FcosError as error:
        run.listener.note(f"the best weights of the earlier session cannot be validated: {error.brief}")
        return None
    run.listener.note("validating the best weights of the earlier session")
    detections, result = _measure(run, artifact)
    if run.val_changed:
        artifact = with_result(artifact, result)
        _save_best(run, artifact)
    return Evaluation(facts_of(artifact), result, detections, best=True)


def _save_best(run: Run, artifact: Artifact) -> None:
    """Write best.safetensors. Until the export at the end there is no best.onnx, which would be of earlier weights."""
    remove_export(run.folder)
    save(run.folder / "best.safetensors", artifact)


def _check_patience(run: Run) -> None:
    """Set the end of the run if the AP has not improved for too long."""
    progress, patience = run.progress, run.config.train.patience
    if not patience or progress.stale < patience or progress.end is not None:
        return
    steps = max(1, min(run.length.steps_per_epoch, round(COOL_DOWN * progress.step)))
    if steps < run.length.remaining(progress):
        progress.end = progress.step + steps
        run.listener.note(f"no better AP for {patience} validations: cooling down for {steps} steps, then the end")


def _on_progress(run: Run, done: int, total: int) -> None:
    """Report progress, and stop on request."""
    run.listener.validating(done, total)
    share_stop(run.stop)
    if run.stop:
        run.save()
        raise run.stopped()


def build_artifact(run: Run) -> Artifact:
    """Return the averaged weights with classes, geometry, provenance and cost. The tensors are not copied."""
    average = run.parts.average
    model = run.parts.model if average is None else cast(FCOS, average.module)
    artifact = Artifact(
        weights=dict(model.state_dict()),
        config=run.config.model,
        classes=run.train.classes,
        geometry=resize_rule(run.config).to_json(),
        provenance={
            "fcos_cli": __version__,
            "torch": torch.__version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": _data_facts(run),
            **({"tile": run.config.data.tile} if run.config.data.tile else {}),
            "initial_weights": run.origin,
            **({} if run.teacher is None else {"teacher": run.teacher.name}),
            "epoch": run.progress.epoch + 1,
            "step": run.progress.step,
        },
    )
    return replace(artifact, provenance=with_cost(facts_of(artifact)).provenance)


def _data_facts(run: Run) -> dict[str, Any]:
    """What the weights record of their training data. division: so that `fcos eval` uses the same val images."""
    train = run.train
    facts = {"name": train.name, "pictures": len(train), "sha256": run.data_hash}
    return facts if train.division is None else {**facts, "division": train.division._asdict()}


def with_result(artifact: Artifact, result: CocoResult) -> Artifact:
    """Add the metrics, and the best score threshold of each class with ENOUGH boxes.

    Other classes get the mean of those; without any, the artifact keeps its thresholds.
    """
    metrics = {name: round(value, 4) for name, value in result.metrics.items()}
    artifact = replace(artifact, provenance={**artifact.provenance, "metrics": metrics})
    own = [row.best_threshold if row.truths >= ENOUGH else None for row in result.per_class]
    known = [threshold for threshold in own if threshold is not None]
    if not known:
        return artifact
    mean = sum(known) / len(known)
    return artifact.with_thresholds(mean, tuple(mean if threshold is None else threshold for threshold in own))
