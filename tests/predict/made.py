"""Runs of `run_predict` for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from fcos_cli.predict.pipeline import Input
from fcos_cli.predict.plan import Outputs, PredictOptions
from fcos_cli.predict.run import run_predict
from fcos_cli.runtime.detector import Detector


def predict_with(detector: Detector, inputs: Iterable[Input], **options: Any) -> int:
    """Call `run_predict`. options: fields of PredictOptions and of Outputs, and its own options."""
    parts = [
        kind(**{field.name: options.pop(field.name) for field in fields(kind) if field.name in options})
        for kind in (PredictOptions, Outputs)
    ]
    return run_predict(detector, inputs, *parts, **options)
