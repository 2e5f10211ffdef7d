"""Start a training run from the command line's arguments: read settings and data, choose the run folder, train."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fcos_cli.config import Config, Origins, flatten, resolve, with_values
from fcos_cli.console import say, table, warn
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.data.doctor import examine, examine_pair
from fcos_cli.data.formats import read_dataset
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.data.tiling import cut
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.backbone import check_maps, input_normalization
from fcos_cli.train.batch_size import choose_batch
from fcos_cli.train.checkpoint import Progress, has_state, read_progress
from fcos_cli.train.distributed import World
from fcos_cli.train.estimate import estimate
from fcos_cli.train.initial_weights import model_of_init
from fcos_cli.train.loop import train
from fcos_cli.train.pace import Clock
from fcos_cli.train.recipe.automatic import with_automatic
from fcos_cli.train.run import open_run, resize_rule, tiles_of
from fcos_cli.train.signals import catching_signals
from fcos_cli.train.tracking.listener import Listeners, SilentListener
from fcos_cli.train.tracking.report import RunReport
from fcos_cli.train.tracking.terminal import TerminalReporter, format_duration
from fcos_cli.train.tracking.trackers import open_tracker

RUNS = Path("runs/train")

DEMO: dict[str, Any] = {
    "model": {"channels": 64, "convs": 1, "ranges": [32.0, 64.0, 128.0, 256.0], "backbone_norm": "frozen"},
    "data": {"size": [160, 160]},
    "augment": {"crop": 0.0, "zoom_out": 0.0, "scale": [0.9, 1.1], "colour": 0.0},
    "train": {"epochs": 4, "batch": 16, "lr": 0.001, "backbone_lr": 0.5, "val_every": 2, "ema": 0.98},
}
"""Settings of `--demo`, which takes minutes on a CPU."""


@dataclass(frozen=True)
class Plan:
    """Settings and data of a training run that is ready to start."""

    config: Config
    origins: Origins
    train: Dataset
    val: Dataset


def plan(
    data: Path | None,
    *,
    file: Path | None,
    assignments: list[str],
    flags: Mapping[str, Any],
    base: Mapping[str, Any],
    network: str | None = None,
) -> Plan:
    """Read the settings and data of a new run. Raises UsageError without data, DataError if the data cannot be used."""
    flags = {**flags, "data.path": None if data is None else str(data.resolve())}
    layers: dict[str, Any] = {"file": file, "assignments": assignments, "base": base, "network": network}
    config, origins = resolve(flags=flags, **layers)
    inherited, absent = model_of_init(config, origins), {}
    if "model.backbone" in origins:  # other weights expect another normalization
        facts = {f"model.{key}": value for key, value in input_normalization(config.model.backbone).items()}
        absent = {key: value for key, value in facts.items() if key not in origins and key not in inherited}
    if inherited or absent:
        config, origins = resolve(flags={**flags, **inherited, **absent}, **layers)
        origins.update(dict.fromkeys(absent, f"timm's {config.model.backbone}"))
        origins.update(dict.fromkeys(inherited, "init"))
    if not config.data.path:
        raise UsageError(
            "no data to train on",
            remedy="fcos train DATA, a folder with COCO, YOLO or VOC annotations; or try fcos train --demo",
        )
    train_set, val_set = read_splits(config)
    config, origins = with_automatic(config, origins, train_set, val_set)
    check_maps(config.model, size=config.data.size)
    return Plan(config, origins, train_set, val_set)


def read_splits(config: Config) -> tuple[Dataset, Dataset]:
    """Read the train and val splits; train as tiles, if the settings say so.

    Raises DataError if their class tables differ, and UsageError if tiles are too small.
    """
    path, data, tiling = Path(config.data.path), config.data, tiles_of(config)
    train_set = read_dataset(path, split="train", val_fraction=data.val_fraction, seed=data.split_seed)
    val_set = read_dataset(path, split="val", val_fraction=data.val_fraction, seed=data.split_seed)
    if train_set.classes != val_set.classes:
        raise DataError("train and val have different class tables", where=path)
    return train_set if tiling is None else cut(train_set, tiling, seed=data.split_seed), val_set


def with_chosen_batch(plan: Plan) -> Plan:
    """The plan with the best batch size for this machine."""
    batch = choose_batch(plan.config, plan.train, plan.val)
    config = with_values(plan.config, {"train.batch": batch})
    return replace(plan, config=config, origins={**plan.origins, "train.batch": "--batch auto"})


def start(plan: Plan, *, folder: Path, started: float | None = None) -> tuple[Path, Progress]:
    """Run the plan in `folder`. Raises UsageError if it already holds a run.

    started: `time.monotonic()` when the command began, from which a time limit counts.
    """
    if has_state(folder):
        raise UsageError(
            "this run folder is already in use",
            where=folder,
            remedy=f"fcos train --resume {folder}, or choose another --name or --out",
        )
    print_data_summary(plan)
    return folder, _run(plan, folder, resume=False, started=started)


def resume(folder: Path, *, flags: Mapping[str, Any], started: float | None = None) -> tuple[Path, Progress]:
    """Continue the run in `folder` with the settings and data it started with.

    Machine settings may differ, and the run may be made longer: by `train.epochs`, or by `train.time` (text such as
    `2h` for the whole run, or `+20m` from now on).
    """
    if not has_state(folder):
        raise UsageError(
            "there is no saved run to resume", where=folder, remedy="name a run folder that holds state.pt"
        )
    changed = [key for key, value in flags.items() if value is not None and key not in {*MACHINE, *LENGTH}]
    if changed:
        raise UsageError(
            f"a resumed run keeps its settings; {', '.join(changed)} cannot change",
            remedy=f"omit them, or start a new run with --init {folder / 'last.safetensors'}",
        )
    config, origins = resolve(file=folder / "config.toml", environ={}, flags=_longer(folder, flags))
    train_set, val_set = read_splits(config)
    return folder, _run(Plan(config, origins, train_set, val_set), folder, resume=True, started=started)


MACHINE = {"train.device", "train.workers", "train.amp"}
"""Settings that may change when a run is resumed."""

LENGTH = {"train.epochs", "train.time"}
"""Settings that make a resumed run longer."""


def _longer(folder: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a resumed run, with its new length in epochs or seconds. Raises UsageError if that is no longer."""
    flags = dict(flags)
    epochs, text = flags.get("train.epochs"), flags.get("train.time")
    if epochs is None and text is None:
        return flags
    done = read_progress(folder)
    if text is not None:
        limit = parse_duration(text.removeprefix("+")) + (done.seconds if text.startswith("+") else 0)
        if limit <= done.seconds:
            raise UsageError(
                f"this run has already used {format_duration(done.seconds)}",
                where=f"--time {text}",
                remedy="give a longer time in all, or +20m for twenty minutes more",
            )
        flags["train.time"] = limit
    elif epochs is not None and epochs <= done.epoch:
        raise UsageError(
            f"this run has already done {done.epoch} epochs",
            where=f"--epochs {epochs}",
            remedy="give more epochs in all",
        )
    else:
        flags["train.time"] = 0.0
    return flags


def parse_duration(text: str) -> float:
    """`90s`, `30m`, `2h`, `1h30m` → seconds, more than 0. Raises UsageError for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(f"--time {text!r} is not a duration", remedy="for example 30m, 2h, 1h30m or 90s")
    return total


def _run(plan: Plan, folder: Path, *, resume: bool, started: float | None) -> Progress:
    check_settings(plan)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    main = int(os.environ.get("RANK", "0")) == 0
    report = RunReport(plan.config, plan.train, plan.val, folder=folder, world=world)
    terminal = TerminalReporter()
    tracker = open_tracker(folder, plan.config) if main else SilentListener()
    say(f"run folder: {folder}")
    listener = Listeners(terminal, report, tracker)
    progress = train(
        plan.config, plan.train, plan.val, folder=folder, resume=resume, listener=listener, started=started
    )
    if main and (report.best is not None or report.write() is not None):
        say(f"report: {folder / 'report.html'}")
    return progress


def check_settings(plan: Plan) -> None:
    """Raise UsageError or DataError for settings that do not fit the data."""
    config, count = plan.config.train, len(plan.train)
    if config.batch > count:
        raise UsageError(
            f"a batch of {config.batch} is larger than the training data ({count} images)",
            where="train.batch",
            remedy=f"use --batch {max(1, count // 4)}",
        )
    if config.accumulate > config.batch:
        raise UsageError(
            f"a batch of {config.batch} cannot be computed in {config.accumulate} parts",
            where="train.accumulate",
            remedy=f"use at most {config.batch}",
        )
    _check_boxes(plan)
    if config.patience and not plan.val.has_boxes:
        raise DataError(
            "patience needs a val split with boxes: without them there is no AP",
            where=plan.val.source,
            remedy="add labelled images to val, or set train.patience = 0",
        )


def _check_boxes(plan: Plan) -> None:
    """Raise DataError if there is nothing to train on, or if val cannot be measured because of errors in it."""
    for dataset in (plan.train, plan.val):
        errors = [finding for finding in dataset.findings if finding.severity == "error"]
        if dataset.has_boxes or (dataset is plan.val and not errors):
            continue
        ignored = sum(len(sample.boxes) for sample in dataset.samples)
        what = f"all {ignored} boxes of the {dataset.split} split are ignored" if ignored else ""
        what = what or f"the {dataset.split} split has no boxes"
        why = "".join(f"; {finding.id}: {finding.message} ({finding.place})" for finding in errors[:1])
        remedy = errors[0].remedy if errors else "check that the labels were found, and not marked difficult or crowd"
        raise DataError(what + why, where=dataset.source, remedy=remedy)


def demo_data(folder: Path) -> Path:
    """Generate the data set of `--demo`, unless it exists."""
    if not (folder / "val.json").is_file():
        say(f"generating the demo images in {folder}")
        write_shapes(folder, train=800, val=100, size=160)
    return folder


def new_folder(name: str | None, data: Path | None) -> Path:
    """Return runs/train/NAME, or without a name the data's name with the first free number."""
    if name is not None:
        return RUNS / name
    stem = "run" if data is None else (data.stem if data.is_file() else data.resolve().name)
    taken = 1
    while (RUNS / (stem if taken == 1 else f"{stem}-{taken}")).exists():
        taken += 1
    return RUNS / (stem if taken == 1 else f"{stem}-{taken}")


def print_data_summary(plan: Plan) -> list[Finding]:
    """Print what the run will train on and the problems found in it. Return the findings."""
    for dataset in (plan.train, plan.val):
        boxes = sum(len(sample.boxes) for sample in dataset.samples)
        say(f"{dataset.split}: {len(dataset)} images, {boxes} boxes ({dataset.format}; {dataset.origin})")
    say(f"classes: {', '.join(plan.train.classes.names)}")
    rule, stride = resize_rule(plan.config), plan.config.model.strides[0]
    findings = [*examine(plan.train, resize=rule, stride=stride), *examine_pair(plan.train, plan.val)]
    of_val = [finding for finding in plan.val.findings if finding not in findings]  # both may come from one file
    for split, found in (("", findings), ("val: ", of_val)):
        for finding in found:
            text = f"{split}{finding.id}: {finding.message} ({finding.place}) {finding.remedy}".rstrip()
            warn(text) if finding.severity != "info" else say(text)
    if not plan.val.has_boxes:
        warn("the val split has no boxes: there will be no AP, and best.safetensors will be the last weights")
    return [*findings, *of_val]


def print_config(plan: Plan) -> None:
    """Print every setting with its value and origin."""
    rows = [
        (key, str(value), plan.origins.get(key, "default"))
        for key, value in flatten(plan.config.model_dump(mode="json")).items()
    ]
    table(("setting", "value", "from"), rows, title="settings")


def print_estimate(plan: Plan) -> None:
    """Measure a few steps, and print how long the run will take."""
    check_settings(plan)
    with tempfile.TemporaryDirectory() as folder, catching_signals() as stop:
        terminal, clock = TerminalReporter(), Clock()
        sets = (plan.train, plan.val)
        with open_run(plan.config, *sets, Path(folder), World(), terminal, stop, clock, resume=False) as run:
            say(estimate(run))
