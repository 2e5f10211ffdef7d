"""Validation: COCO metrics of the averaged weights on val, and the files last.safetensors and best.safetensors."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import cast

import torch

from fcos_cli import __version__
from fcos_cli.evaluate.coco import CocoResult, evaluate
from fcos_cli.model.artifact import Artifact, save
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.pytorch import PyTorchDetector
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.metrics_log import Row
from fcos_cli.train.run import Run, resize_rule


def validate(run: Run, progress: Progress) -> None:
    """Evaluate the averaged weights on val.

    Write last.safetensors, and best.safetensors if the AP is the highest so far.
    """
    if run.world.main:
        model = _averaged(run)
        facts = Facts(classes=run.train.classes, resize=resize_rule(run.config))
        detector = PyTorchDetector(model.eval(), facts, name="last", device=run.device)
        started = time.monotonic()
        result = evaluate(
            detector,
            run.val,
            on_progress=partial(_on_progress, run),
            on_unreadable=lambda failure: run.listener.note(f"no detections in a val image: {failure.error}"),
        )
        row: Row = {
            "kind": "val",
            "step": progress.step,
            "epoch": progress.epoch + 1,
            **{name: round(value, 5) for name, value in result.metrics.items()},
            "seconds": round(time.monotonic() - started, 1),
        }
        better = result.metrics["AP"] >= progress.best
        artifact = _build_artifact(run, model, result, progress)
        save(run.folder / "last.safetensors", artifact)
        if better:
            progress.best, progress.best_epoch = result.metrics["AP"], progress.epoch
            save(run.folder / "best.safetensors", artifact)
        if run.metrics is not None:
            run.metrics.add(row)
        run.listener.validated({**row, "best": better})
    if run.world.size > 1:
        torch.distributed.barrier()


def _on_progress(run: Run, done: int, total: int) -> None:
    """Report progress, and stop on request; the state was saved before validation."""
    run.listener.validating(done, total)
    if run.stop:
        raise run.stopped()


def _averaged(run: Run) -> FCOS:
    return run.parts.model if run.parts.average is None else cast(FCOS, run.parts.average.module)


def _build_artifact(run: Run, model: FCOS, result: CocoResult, progress: Progress) -> Artifact:
    """Return the weights with classes, geometry, thresholds and provenance."""
    artifact = Artifact(
        weights=dict(model.state_dict()),
        config=run.config.model,
        classes=run.train.classes,
        geometry=resize_rule(run.config).to_json(),
        provenance={
            "fcos_cli": __version__,
            "torch": torch.__version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {"name": run.train.source.name, "pictures": len(run.train), "sha256": run.data_hash},
            "initial_weights": run.origin,
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "metrics": {name: round(value, 4) for name, value in result.metrics.items()},
        },
    )
    thresholds = [row.best_threshold for row in result.per_class if row.best_threshold is not None]
    if not thresholds:
        return artifact
    mean = sum(thresholds) / len(thresholds)
    per_class = tuple(mean if row.best_threshold is None else row.best_threshold for row in result.per_class)
    return artifact.with_thresholds(mean, per_class)
