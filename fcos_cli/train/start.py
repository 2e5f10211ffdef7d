"""Start a training run from the command line's arguments: read settings and data, choose the run folder, train."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcos_cli.config import Config, Origins, flatten, resolve
from fcos_cli.console import say, table, warn
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.data.doctor import examine, examine_pair
from fcos_cli.data.formats import read_dataset
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.backbone import check_maps, input_normalization
from fcos_cli.train.checkpoint import Progress, has_state
from fcos_cli.train.initial_weights import model_of_init
from fcos_cli.train.loop import train
from fcos_cli.train.progress import TerminalReporter
from fcos_cli.train.report import write_run_report
from fcos_cli.train.run import resize_rule

RUNS = Path("runs/train")

DEMO: dict[str, Any] = {
    "model": {"channels": 64, "convs": 1, "ranges": [32.0, 64.0, 128.0, 256.0]},
    "data": {"size": [160, 160]},
    "augment": {"crop": 0.0, "zoom_out": 0.0, "scale": [0.9, 1.1], "colour": 0.0},
    "train": {"epochs": 4, "batch": 16, "val_every": 2, "ema": 0.98},
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
    data: Path | None, *, file: Path | None, assignments: list[str], flags: Mapping[str, Any], base: Mapping[str, Any]
) -> Plan:
    """Read the settings and data of a new run. Raises UsageError without data, DataError if the data cannot be used."""
    flags = {**flags, "data.path": None if data is None else str(data.resolve())}
    config, origins = resolve(file=file, assignments=assignments, flags=flags, base=base)
    inherited, absent = model_of_init(config, origins), {}
    if "model.backbone" in origins:  # other weights expect another normalization
        facts = {f"model.{key}": value for key, value in input_normalization(config.model.backbone).items()}
        absent = {key: value for key, value in facts.items() if key not in origins and key not in inherited}
    if inherited or absent:
        config, origins = resolve(file=file, assignments=assignments, flags={**flags, **inherited, **absent}, base=base)
        origins.update(dict.fromkeys(absent, f"timm's {config.model.backbone}"))
        origins.update(dict.fromkeys(inherited, "init"))
    if not config.data.path:
        raise UsageError(
            "no data to train on",
            remedy="fcos train DATA, a folder with COCO, YOLO or VOC annotations; or try fcos train --demo",
        )
    check_maps(config.model, size=config.data.size)
    train_set, val_set = read_splits(config)
    return Plan(config, origins, train_set, val_set)


def read_splits(config: Config) -> tuple[Dataset, Dataset]:
    """Read the train and val splits. Raises DataError if their class tables differ."""
    path, data = Path(config.data.path), config.data
    train_set = read_dataset(path, split="train", val_fraction=data.val_fraction, seed=data.split_seed)
    val_set = read_dataset(path, split="val", val_fraction=data.val_fraction, seed=data.split_seed)
    if train_set.classes != val_set.classes:
        raise DataError("train and val have different class tables", where=path)
    return train_set, val_set


def start(plan: Plan, *, folder: Path) -> tuple[Path, Progress]:
    """Run the plan in `folder`. Raises UsageError if it already holds a run."""
    if has_state(folder):
        raise UsageError(
            "this run folder is already in use",
            where=folder,
            remedy=f"fcos train --resume {folder}, or choose another --name or --out",
        )
    print_data_summary(plan)
    return folder, _run(plan, folder, resume=False)


def resume(folder: Path, *, flags: Mapping[str, Any]) -> tuple[Path, Progress]:
    """Continue the run in `folder` with the settings and data it started with; only machine settings may differ."""
    if not has_state(folder):
        raise UsageError(
            "there is no saved run to resume", where=folder, remedy="name a run folder that holds state.pt"
        )
    changed = [key for key, value in flags.items() if value is not None and key not in MACHINE]
    if changed:
        raise UsageError(
            f"a resumed run keeps its settings; {', '.join(changed)} cannot change",
            remedy=f"omit them, or start a new run with --init {folder / 'last.safetensors'}",
        )
    config, origins = resolve(file=folder / "config.toml", environ={}, flags=flags)
    train_set, val_set = read_splits(config)
    return folder, _run(Plan(config, origins, train_set, val_set), folder, resume=True)


MACHINE = {"train.device", "train.workers", "train.amp"}
"""Settings that may change when a run is resumed."""


def _run(plan: Plan, folder: Path, *, resume: bool) -> Progress:
    listener = TerminalReporter()
    say(f"run folder: {folder}")
    try:
        progress = train(plan.config, plan.train, plan.val, folder=folder, resume=resume, listener=listener)
    finally:
        listener.close()
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if rank == 0:
        write_run_report(plan.config, plan.train, plan.val, folder=folder, world=world)
    return progress


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
    findings = [*examine(plan.train, resize=resize_rule(plan.config)), *examine_pair(plan.train, plan.val)]
    for finding in findings:
        text = f"{finding.id}: {finding.message} ({finding.place}) {finding.remedy}".rstrip()
        warn(text) if finding.severity != "info" else say(text)
    return findings


def print_config(plan: Plan) -> None:
    """Print every setting with its value and origin."""
    rows = [
        (key, str(value), plan.origins.get(key, "default"))
        for key, value in flatten(plan.config.model_dump(mode="json")).items()
    ]
    table(("setting", "value", "from"), rows, title="settings")
    steps = max(1, math.floor(len(plan.train) / plan.config.train.batch))
    say(f"{plan.config.train.epochs} epochs of {steps} steps of {plan.config.train.batch} images")
