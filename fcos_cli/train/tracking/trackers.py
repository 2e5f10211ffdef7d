"""Experiment trackers: TensorBoard, MLflow and Weights & Biases, each an extra. They only get numbers and the settings.

`train.tracker` names one. Nothing leaves the machine unless the tracker is configured to send it: MLflow and Weights &
Biases read their own environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fcos_cli.config import Config, flatten
from fcos_cli.console import warn
from fcos_cli.errors import MissingExtra, one_line
from fcos_cli.train.tracking.listener import Evaluation, Listener, Row
from fcos_cli.train.tracking.metrics import LOG_EVERY


class Tracker(Listener):
    """Sends the numbers of every twentieth step and of every validation to `log`, as `train/loss`, `val/AP` …

    If that fails, since a server is away say, it is told once, and the run goes on without the tracker.
    """

    lost = False

    def log(self, values: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def step(self, row: Row) -> None:
        if row["step"] % LOG_EVERY == 0:
            self._try(self.log, numbers(row), row["step"])

    def validated(self, row: Row, evaluation: Evaluation) -> None:  # noqa: ARG002 (the interface)
        self._try(self.log, numbers(row), row["step"])

    def close(self) -> None:
        self._try(self.end)

    def _try(self, call: Callable[..., None], *values: Any) -> None:
        if self.lost:
            return
        try:
            call(*values)
        except Exception as error:  # of many libraries
            self.lost = True
            _tell(type(self).__name__, error)


def _tell(name: str, error: Exception) -> None:
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

    def __init__(self, folder: Path, config: Config) -> None:  # noqa: ARG002 (as the others)
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def end(self) -> None:
        self.writer.close()


class MLflow(Tracker):
    """Logs to MLflow; without a tracking URI, to a database in the run folder."""

    def __init__(self, folder: Path, config: Config) -> None:
        import mlflow

        self.mlflow: Any = mlflow
        if not self.mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        mlflow.set_experiment("fcos")
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params(settings(config))

    def log(self, values: dict[str, float], step: int) -> None:
        self.mlflow.log_metrics(values, step=step)

    def end(self) -> None:
        self.mlflow.end_run()


class WeightsAndBiases(Tracker):
    """Logs to Weights & Biases; offline into the run folder unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, config: Config) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.run: Any = wandb.init(
            project="fcos", name=folder.name, dir=str(folder), config=settings(config), mode=mode
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log(values, step=step)

    def end(self) -> None:
        self.run.finish()


PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""Value of `train.tracker`, and name of the extra → the package it needs."""


def settings(config: Config) -> dict[str, str]:
    """All settings by dotted key, as text."""
    return {key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()}


def open_tracker(folder: Path, config: Config) -> Listener:
    """The listener that `train.tracker` names; `auto` is TensorBoard if it is installed. One that fails is left out.

    Raises MissingExtra if the package is not installed.
    """
    name = config.train.tracker
    if name == "auto":
        name = "tensorboard" if find_spec("tensorboard") else "none"
    if name == "none":
        return Listener()
    if find_spec(PACKAGES[name]) is None:
        raise MissingExtra(f"{name} is not installed", extra=name)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}
    try:
        return kinds[name](folder, config)
    except Exception as error:  # of many libraries
        _tell(kinds[name].__name__, error)
        return Listener()
