"""Training runs that take seconds: a tiny network on the synthetic data set."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fcos_cli.config import Config
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.train import step as step_module
from fcos_cli.train.speed import estimate
from fcos_cli.train.tracking.listener import Evaluation, Listener, Row
from tests.tiny import SHAPE

SETTINGS: dict[str, Any] = {
    "model": SHAPE,
    "data": {"size": (64, 64)},
    "augment": {"crop": 0.0, "zoom_out": 0.0, "colour": 0.0},
    "train": {
        "epochs": 2,
        "batch": 2,
        "lr": 0.01,
        "init": "random",
        "device": "cpu",
        "workers": 0,
        "amp": "off",
        "tune": False,
        "export": False,
    },
}
"""2 epochs of 3 steps, with the 6 images of `splits`. Tuning would make two runs differ in their last bits, and an
export takes 20 s."""


def config_of(**train: Any) -> Config:
    return Config.model_validate({**SETTINGS, "train": {**SETTINGS["train"], **train}})


def splits(folder: Path) -> tuple[Dataset, Dataset]:
    """The first 6 training images, and val."""
    whole = read_dataset(folder, split="train")
    return replace(whole, samples=whole.samples[:6]), read_dataset(folder, split="val")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def figures(folder: Path) -> list[dict[str, Any]]:
    """Validation rows without their times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder) if row["kind"] == "val"]


def state(folder: Path) -> dict[str, Any]:
    """The saved state, without the times that were measured."""
    content: dict[str, Any] = torch.load(folder / "state.pt", weights_only=True)
    for name in ("seconds", "step_seconds", "validation_seconds", "export_seconds"):
        del content["progress"][name]
    return content


def at(step: int, number: int = signal.SIGTERM) -> Callable[[int], None]:
    """Send this process a signal after `step`."""

    def strike(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return strike


class Recorder(Listener):
    """A listener that records all events; `on_step` and `on_validating` are called at a step."""

    def __init__(self, on_step: Any = None, on_validating: Any = None) -> None:
        self.notes: list[str] = []
        self.steps: list[Row] = []
        self.validations: list[Row] = []
        self.evaluations: list[Evaluation] = []
        self.closed = 0
        self.on_step, self.on_validating = on_step, on_validating

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, row: Row) -> None:
        self.steps.append(row)
        if self.on_step:
            self.on_step(row["step"])

    def validating(self, done: int, total: int) -> None:
        if self.on_validating:
            self.on_validating(done, total)

    def validated(self, row: Row, evaluation: Evaluation) -> None:
        self.validations.append(row)
        self.evaluations.append(evaluation)

    def close(self) -> None:
        self.closed += 1


def same(a: Any, b: Any) -> bool:
    """Whether two values, dicts or lists are bit-equal."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


class Spoiler:
    """In place of `compute_losses`: the loss of some calls, counted from 1, is not finite."""

    def __init__(self, *calls: int) -> None:
        self.true, self.calls, self.count = step_module.compute_losses, calls, 0

    def __call__(self, *arguments: Any, **settings: Any) -> dict[str, torch.Tensor]:
        self.count += 1
        terms = self.true(*arguments, **settings)
        return {**terms, "box": terms["box"] * float("nan")} if self.count in self.calls else terms


def measured(calls: int) -> int:
    """Number of a call in training, after those of the estimate."""
    return estimate.WARMUP + estimate.STEPS + calls
