"""Experiment trackers: TensorBoard, MLflow and Weights & Biases, each an extra. They only get numbers and the settings.

`train.tracker` names one. Nothing leaves the machine unless the tracker is configured to send it: MLflow and Weights &
Biases read their own environment variables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fcos_cli.atomic import atomic_write
from fcos_cli.config import Config, flatten
from fcos_cli.console import warn
from fcos_cli.distributed.world import announced
from fcos_cli.errors import MissingExtra, one_line
from fcos_cli.train.folder import TRACKER_RUN
from fcos_cli.train.tracking.listener import Evaluation, Listener, Row
from fcos_cli.train.tracking.metrics import LOG_EVERY


class Tracker(Listener):
    """Sends the numbers of every twentieth step and of every validation to `log`, as `train/loss`, `val/AP` …

    It is opened once the run has begun: a run that cannot start leaves nothing behind. If the tracker fails, say
    because a server is down, that is reported once, and the run goes on without it. resume: continue the tracker's own
    run, which tracker.json in the run folder names, if there is one.
    """

    lost = False

    def __init__(self, folder: Path, config: Config, *, resume: bool = False) -> None:
        self.folder, self.config, self.resume = folder, config, resume

    def open(self) -> None:
        raise NotImplementedError

    def log(self, values: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def begun(self) -> None:
        self._try(self.open)

    def step(self, row: Row) -> None:
        if row["step"] % LOG_EVERY == 0:
            self._try(self.log, numbers(row), row["step"])

    def validated(self, row: Row, evaluation: Evaluation) -> None:  # noqa: ARG002 (the interface)
        self._try(self.log, numbers(row), row["step"])

    def close(self) -> None:
        self._try(self.end)

    def earlier(self) -> str | None:
        """The tracker's name of the run that is resumed."""
        file = self.folder / TRACKER_RUN
        if not self.resume or not file.exists():
            return None
        saved: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        return saved.get(self.config.train.tracker)

    def remember(self, run: str) -> None:
        """Write the tracker's name of this run, for `earlier`."""
        with atomic_write(self.folder / TRACKER_RUN) as file:
            json.dump({self.config.train.tracker: run}, file)

    def _try(self, call: Callable[..., None], *values: Any) -> None:
        if self.lost:
            return
        try:
            call(*values)
        except Exception as error:  # from many libraries
            self.lost = True
            name = type(self).__name__
            warn(f"{name} failed ({one_line(error)}): the run goes on without it; metrics.jsonl has all numbers")


def numbers(row: Row) -> dict[str, float]:
    """The numbers of a row, named after its kind."""
    left_out = ("step", "epoch", "steps", "seconds_left", "best")
    return {
        f"{row['kind']}/{key}": value
        for key, value in row.items()
        if isinstance(value, int | float) and key not in left_out
    }


class TensorBoard(Tracker):
    """Writes TensorBoard events into the run folder."""

    def open(self) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer: Any = SummaryWriter(str(self.folder))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def end(self) -> None:
        self.writer.close()


class MLflow(Tracker):
    """Logs to MLflow; without a tracking URI, to a database in the run folder."""

    def open(self) -> None:
        import mlflow

        self.mlflow: Any = mlflow
        if not self.mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(f"sqlite:///{(self.folder / 'mlflow.db').resolve()}")
        earlier = self.earlier()
        if earlier is not None:
            mlflow.start_run(run_id=earlier)
            return  # parameters cannot be changed
        mlflow.set_experiment("fcos")
        self.remember(mlflow.start_run(run_name=self.folder.name).info.run_id)
        mlflow.log_params(settings(self.config))

    def log(self, values: dict[str, float], step: int) -> None:
        self.mlflow.log_metrics(values, step=step)

    def end(self) -> None:
        self.mlflow.end_run()


class WeightsAndBiases(Tracker):
    """Logs to Weights & Biases; offline into the run folder unless WANDB_MODE says otherwise."""

    def open(self) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        name, folder = self.folder.name, str(self.folder)
        self.run: Any = wandb.init(
            project="fcos",
            name=name,
            dir=folder,
            config=settings(self.config),
            mode=mode,
            id=self.earlier(),
            resume="allow" if mode == "online" else None,
        )
        self.remember(self.run.id)

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log(values, step=step)

    def end(self) -> None:
        self.run.finish()


PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""Value of `train.tracker`, and name of the extra → the package it needs."""


def settings(config: Config) -> dict[str, str]:
    """All settings by dotted key, as text."""
    return {key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()}


def check_tracker(config: Config) -> None:
    """Raise MissingExtra if the package of `train.tracker` is not installed. Only the main process needs it."""
    name = config.train.tracker
    if announced().main and name in PACKAGES and find_spec(PACKAGES[name]) is None:
        raise MissingExtra(f"{name} is not installed", extra=name, where=f"train.tracker = {name}")


def make_tracker(folder: Path, config: Config, *, resume: bool = False) -> Listener:
    """The listener that `train.tracker` names; `auto` is TensorBoard if it is installed. resume: as in `Tracker`."""
    name = config.train.tracker
    if name == "auto":
        name = "tensorboard" if find_spec("tensorboard") else "none"
    kinds = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}
    return Listener() if name == "none" else kinds[name](folder, config, resume=resume)
