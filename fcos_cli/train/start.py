"""Start a training run, or continue one: its settings, its length, and those who listen to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fcos_cli.atomic import check_writable
from fcos_cli.config import Config, Origins, flatten, resolve, with_values
from fcos_cli.console import say
from fcos_cli.distributed.group import by_main_process, exchange, failing_together, join_world, telling_others
from fcos_cli.distributed.world import World, announced, messages_of, use_own_gpu
from fcos_cli.errors import DataError, UsageError
from fcos_cli.train.checkpoint import Progress, has_state, read_progress, start_anew
from fcos_cli.train.export import export_best
from fcos_cli.train.folder import RUNS, check_folder, hold_folder, new_folder
from fcos_cli.train.initial_weights import WITHOUT_DETECTOR
from fcos_cli.train.loop import train
from fcos_cli.train.recipe.choices import choose_val_every
from fcos_cli.train.recipe.demo import DEMO, demo_data
from fcos_cli.train.recipe.plan import Plan, check_settings, make_plan, read_splits, with_chosen_batch
from fcos_cli.train.recipe.summary import print_choices, print_data_summary
from fcos_cli.train.tracking.listener import Listeners
from fcos_cli.train.tracking.report import ORIGINS, RunReport
from fcos_cli.train.tracking.terminal import TerminalReporter, format_duration
from fcos_cli.train.tracking.trackers import check_tracker, make_tracker


class Outcome(NamedTuple):
    """A run that has ended. onnx: the export of its best weights, if there is one."""

    folder: Path
    progress: Progress
    onnx: Path | None


SETTINGS = {
    "backbone": "model.backbone",
    "init": "train.init",
    "size": "data.size",
    "tile": "data.tile",
    "teacher": "train.teacher",
    "epochs": "train.epochs",
    "patience": "train.patience",
    "batch": "train.batch",
    "lr": "train.lr",
    "amp": "train.amp",
    "device": "train.device",
    "workers": "train.workers",
    "seed": "train.seed",
    "export": "train.export",
}
"""Option of `fcos train` and of `api.train` → the setting that it changes."""


def settings_of(**options: Any) -> dict[str, Any]:
    """The settings by dotted key that these options change. None and a batch of `auto` change nothing."""
    auto = {"batch"} if options.get("batch") == "auto" else set()
    return {SETTINGS[name]: value for name, value in options.items() if value is not None and name not in auto}


def plan_new(
    data: Path | None,
    *,
    name: str | None,
    out: Path | None,
    file: Path | None,
    assignments: list[str],
    flags: Mapping[str, Any],
    time: str | float | None,
    network: str | None,
    demo: bool,
    choose_batch: bool,
    check: bool = True,
) -> tuple[Plan, Path | None]:
    """The plan of a new run, and its folder; None for one with an automatic name. time: limit, as text or in seconds.
    check: that the run could start: its folder is free, and does not hold `file`, which config.toml would replace.

    Raises UsageError and DataError; nothing is written but the demo data.
    """
    with messages_of(_this_process()), telling_others("fcos train") if check else nullcontext():
        if demo and data is not None:
            raise UsageError("--demo trains on images of its own", where=f"DATA: {data}", remedy="give one of the two")
        folder = out or (None if name is None else RUNS / name)
        if folder == RUNS and out is None:
            raise UsageError(f"a run cannot have the name {name!r}", where="--name", remedy="check it, or omit --name")
        if check:
            if folder is not None and file is not None and file.resolve() == (folder / "config.toml").resolve():
                raise UsageError(
                    "the run would replace this file with all of its settings",
                    where=file,
                    remedy="give it another name, or choose another --name or --out",
                )
            check_folder(folder)  # reading the data takes time
        if demo:
            data = demo_data(Path("runs/demo-data"))
        plan = make_plan(
            data,
            file=file,
            assignments=assignments,
            flags=_with_length(flags, time),
            base=DEMO if demo else {},
            network=network,
        )
        plan = replace(plan, config=_with_absolute_paths(plan.config), demo=demo)
        return (with_chosen_batch(plan) if choose_batch else plan), folder


def _with_absolute_paths(config: Config) -> Config:
    """The config for a run that may be resumed from another working directory."""
    paths = {"data.path": str(Path(config.data.path).absolute())}
    if config.train.teacher not in ("", "default", "coco", *WITHOUT_DETECTOR):
        paths["train.teacher"] = str(Path(config.train.teacher).absolute())
    return with_values(config, paths)


def _with_length(flags: Mapping[str, Any], time: str | float | None) -> dict[str, Any]:
    """The flags of a new run with its time limit. A number of epochs sets aside a limit that a file has."""
    epochs = flags.get("train.epochs")
    if isinstance(epochs, int):
        _check_length(epochs, flags.get("train.time") or None if time is None else time)
        return {"train.time": 0.0, **flags}
    limit = parse_duration(time) if isinstance(time, str) else time
    return {**flags} if limit is None else {**flags, "train.time": limit}


def _check_length(epochs: int | None, time: str | float | None) -> None:
    if epochs is not None and time is not None:
        raise UsageError(
            "a run ends after a number of epochs or within a time limit",
            where=f"--epochs {epochs} --time {time}",
            remedy="give one of the two",
        )


def start(plan: Plan, *, folder: Path | None, started: float | None = None) -> Outcome:
    """Run the plan in `folder`, or without one in a new folder. Raises UsageError if it cannot be used: `new_folder`.

    started: `time.monotonic()` when the command began, from which a time limit counts.
    """
    data = Path("demo" if plan.demo else plan.config.data.path)
    with messages_of(_this_process()), join_world("fcos train"), ExitStack() as held:
        with failing_together():
            place = by_main_process(lambda: held.enter_context(new_folder(folder, data=data)))
            print_data_summary(plan)
            print_choices(plan)
            check_settings(plan)
        return _run(plan, place, resume=False, started=started)


def resume(folder: Path, *, flags: Mapping[str, Any], started: float | None = None) -> Outcome:
    """Continue the run in `folder` with the settings and data it started with.

    Machine settings may differ, and the run may be made longer: by `train.epochs`, or by `train.time` (seconds or text
    such as `2h` for the whole run, or `+20m` from now on). Of several processes only the main one needs the folder.
    """
    with messages_of(_this_process()), join_world("fcos train --resume"), ExitStack() as held:
        with failing_together():
            _check_holder(folder)
            config, origins = by_main_process(lambda: _saved_settings(folder, flags))
            by_main_process(lambda: held.enter_context(hold_folder(folder)))
            if not Path(config.data.path).exists():
                remedy = f"if it was moved, set data.path in {folder / 'config.toml'}"
                raise DataError("the data of this run is not there any more", where=config.data.path, remedy=remedy)
            check_tracker(config)
            plan = Plan(config, origins, *read_splits(config))
            check_settings(plan)
        return _run(plan, folder, resume=True, started=started)


def _this_process() -> World:
    """What torchrun has announced of this process, which sees only its own GPU from here on."""
    world = announced()
    use_own_gpu(world)
    return world


def _check_holder(folder: Path) -> None:
    """Raise UsageError if the folder is on the machine of another process than the main one."""
    held = exchange(has_state(folder))
    others = [f"rank {rank} on {machine}" for rank, (machine, here) in enumerate(held) if here]
    if others and not held[0][1]:
        raise UsageError(
            f"the run folder is not on the machine of rank 0, {held[0][0]}",
            where=f"{folder}: {others[0]}",
            remedy="use a folder that all machines share, or torchrun --node-rank 0 on the machine that has it",
        )


def _saved_settings(folder: Path, flags: Mapping[str, Any]) -> tuple[Config, Origins]:
    """The settings of the run in `folder` with these flags, and where each came from."""
    if not has_state(folder):
        raise UsageError(
            "there is no saved run to resume", where=folder, remedy="name a run folder that holds state.pt"
        )
    check_writable(folder, folder=True)
    changed = [key for key, value in flags.items() if value is not None and key not in {*MACHINE, *LENGTH}]
    if changed:
        raise UsageError(
            f"a resumed run keeps its settings; {', '.join(changed)} cannot be given",
            remedy=f"omit them, or {start_anew(folder)}",
        )
    config, _ = resolve(file=folder / "config.toml", environ={}, flags=_longer(folder, flags))
    before = flatten(resolve(file=folder / "config.toml", environ={})[0].model_dump())
    changed = [key for key, value in flatten(config.model_dump()).items() if value != before[key]]
    return config, {**_read_origins(folder), **dict.fromkeys(changed, "--resume")}


MACHINE = {"train.device", "train.workers", "train.amp", "train.export"}
"""Settings that may change when a run is resumed."""

LENGTH = {"train.epochs", "train.time"}
"""Settings that make a resumed run longer."""


def _longer(folder: Path, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a resumed run, with its new length in epochs or seconds. Raises UsageError if that is no longer."""
    flags = dict(flags)
    epochs, time = flags.get("train.epochs"), flags.get("train.time")
    if epochs is None and time is None:
        return flags
    _check_length(epochs, time)
    done = read_progress(folder)
    ended = ", and has ended" if done.finished else ""
    if time is not None:
        limit = parse_duration(time.removeprefix("+")) if isinstance(time, str) else float(time)
        limit += done.seconds if str(time).startswith("+") else 0
        if limit <= done.seconds or (done.finished and done.planned[1:] == [limit]):
            raise UsageError(
                f"this run has already used {format_duration(done.seconds)}{ended}",
                where=f"--time {time}",
                remedy="give a longer time in all, or +20m for twenty minutes more",
            )
        if done.planned and limit < done.planned[1]:
            say(f"the time limit is {format_duration(limit)} in all now, instead of {format_duration(done.planned[1])}")
        flags["train.time"] = limit
        return flags
    assert epochs is not None
    if epochs <= done.epoch or (done.finished and done.planned == [epochs, 0.0]):
        raise UsageError(
            f"this run has already done {done.epoch} epochs{ended}",
            where=f"--epochs {epochs}",
            remedy=f"give more than {max(epochs, done.epoch)} epochs in all",
        )
    flags["train.time"] = 0.0
    if done.planned and done.planned[1] and "train.val_every" not in _read_origins(folder):
        flags["train.val_every"] = choose_val_every(epochs=epochs).value  # with a time limit it has no meaning
    return flags


def parse_duration(text: str) -> float:
    """`90s`, `30m`, `2h`, `1h30m` → seconds, more than 0. Raises UsageError for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise UsageError(f"--time {text!r} is not a duration", remedy="for example 30m, 2h, 1h30m or 90s")
    return total


def _run(plan: Plan, folder: Path, *, resume: bool, started: float | None) -> Outcome:
    world = announced()
    main = world.main
    report = RunReport(plan.config, plan.train, plan.val, folder=folder, world=world.size, origins=plan.origins)
    say(f"run folder: {folder}")
    listener = Listeners(TerminalReporter(), report, make_tracker(folder, plan.config, resume=resume))
    progress = train(
        plan.config, plan.train, plan.val, folder=folder, resume=resume, listener=listener, started=started
    )
    if main and (report.best is not None or report.write() is not None):
        say(f"report: {folder / 'report.html'}")
    return Outcome(folder, progress, export_best(folder, plan.config.train, progress) if main else None)


def _read_origins(folder: Path) -> Origins:
    """What was stored when the run began; nothing if the file is missing or damaged, since no run depends on it."""
    try:
        origins = json.loads((folder / ORIGINS).read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in origins.items()}
    except (OSError, ValueError, AttributeError):
        return {}
