"""What `fcos train` says before the first step: data, findings, classes, settings and an estimate."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fcos_cli.config import flatten
from fcos_cli.console import say, table
from fcos_cli.data.doctor import examine_splits, print_findings
from fcos_cli.data.samples import Finding
from fcos_cli.distributed.world import announced
from fcos_cli.train.pace import Clock
from fcos_cli.train.recipe.automatic import AUTO
from fcos_cli.train.recipe.plan import Plan, check_settings
from fcos_cli.train.run import open_run, repeats_of, resize_rule
from fcos_cli.train.speed.estimate import estimate
from fcos_cli.train.tracking.terminal import TerminalReporter


def print_data_summary(plan: Plan) -> list[Finding]:
    """Print what the run will train on and the problems found in it. Return the findings."""
    for dataset in (plan.train, plan.val):
        boxes = sum(len(sample.boxes) for sample in dataset.samples)
        say(f"{dataset.split}: {len(dataset)} images, {boxes} boxes ({dataset.format}; {dataset.origin})")
    say(f"classes: {', '.join(plan.train.classes.names)}")
    rule, stride = resize_rule(plan.config), plan.config.model.strides[0]
    findings = examine_splits(plan.train, plan.val, resize=rule, stride=stride)
    for split, finding in findings:
        print_findings([finding], split="val" if split == "val" else "")
    return [finding for _, finding in findings]


def print_choices(plan: Plan) -> None:
    """Print the settings that were chosen for this data, with the reasons."""
    values = flatten(plan.config.model_dump(mode="json"))
    for key, origin in plan.origins.items():
        if origin.startswith(AUTO):
            say(f"{key} = {values[key]} ({origin.removeprefix(AUTO)})")


def print_classes(plan: Plan) -> None:
    """Print how many images and boxes each class has, and how many images with it an epoch shows."""
    samples, classes = plan.train.samples, plan.train.classes
    repeats = repeats_of(plan.config, plan.train)
    rows = []
    for index, name in enumerate(classes.names):
        counts = np.array([np.sum(sample.classes[~sample.ignore] == index) for sample in samples])
        shown = counts.astype(bool) * (1.0 if repeats is None else repeats)
        rows.append((name, f"{np.count_nonzero(counts)}", f"{counts.sum()}", f"{shown.sum():.0f}"))
    table(("class", "images", "boxes", "images per epoch"), rows, title="classes")


def settings_document(plan: Plan) -> dict[str, dict[str, Any]]:
    """Every setting with its value and origin, for JSON."""
    values = flatten(plan.config.model_dump(mode="json"))
    return {key: {"value": value, "from": plan.origins.get(key, "default")} for key, value in values.items()}


def print_config(plan: Plan) -> None:
    """Print every setting with its value and origin."""
    rows = [(key, str(row["value"]), row["from"]) for key, row in settings_document(plan).items()]
    table(("setting", "value", "from"), rows, title="settings")


def print_estimate(plan: Plan, *, started: float) -> None:
    """Measure a few steps, and print how long the run will take. Only one process does, whatever torchrun announces.

    started: `time.monotonic()` when the command began, from which a time limit counts.
    """
    check_settings(plan)
    listener, clock = TerminalReporter(), Clock(started=started)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(plan.config, plan.train, plan.val, Path(folder), listener=listener, clock=clock) as run,
    ):
        size = announced().size
        say(estimate(run) + (f" in one process; {size} of them share the steps" if size > 1 else ""))
