"""Pictures for the tests of jobs, and their results without a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcos_cli.predict.cluster.model import ModelFiles, ModelOptions
from fcos_cli.predict.cluster.worker import Task, Worker
from fcos_cli.predict.plan import Outputs, PredictOptions
from fcos_cli.predict.run import run_predict
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.runtime.open import open_detector

BROKEN = 5
"""Number of the picture that cannot be read."""


def write_pictures(folder: Path, count: int, *, slow: int = 0) -> Path:
    """`count` small pictures of noise, one of which cannot be read, and `slow` large ones among them, all the same."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    (folder / f"{BROKEN:03}.png").write_bytes(b"no picture")
    if slow:
        large = folder / "000-large.jpg"
        Image.fromarray(rng.integers(0, 256, (1500, 2000, 3), dtype=np.uint8)).save(large)
        for number in range(1, slow):
            os.link(large, folder / f"{number:03}-large.jpg")
    return folder


def local_rows(model: Path, source: object, file: Path) -> list[dict[str, Any]]:
    """The rows of `fcos predict --jsonl`, by source."""
    run_predict(open_detector(model), open_sources([str(source)]), PredictOptions(), Outputs(save=[file]))
    return sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda row: str(row["source"]))


def job_rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a job in the form of `local_rows`."""
    import pyarrow.parquet as pq

    return sorted(map(_as_json, pq.read_table(out).to_pylist()), key=lambda row: str(row["source"]))


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    if row["error"] is not None:
        assert all(row[name] is None for name in ("width", "height", "boxes", "scores", "classes", "category_ids"))
        return {"schema_version": 1, "source": row["source"], "error": row["error"]}
    columns = zip(row["boxes"], row["scores"], row["classes"], row["category_ids"], strict=True)
    detections = [
        {
            "box": [round(value, 2) for value in box],
            "score": round(float(np.float32(score)), 4),
            "class": name,
            "category_id": identity,
        }
        for box, score, name, identity in columns
    ]
    size = {"width": row["width"], "height": row["height"]}
    return {"schema_version": 1, "source": row["source"], **size, "detections": detections}


class _Here:
    """Stands for Ray's actor that counts attempts, in this process."""

    def __init__(self, attempts: Any) -> None:
        self.begin = self
        self.remote = attempts


def worker_here(task: Task, model: Path, monkeypatch: Any, *, attempts: Any = lambda number: 1) -> Worker:
    """A worker in this process. attempts: number of a partition → how often it was begun."""
    import ray

    monkeypatch.setattr(ray, "get", lambda reference: reference)
    return Worker(task, [ModelFiles.read(model, title="the model")], _Here(attempts))


def task_of(out: Any, roots: Any, base: Path, **changes: Any) -> Task:
    options = ModelOptions(**{"device": "cpu", **changes})
    return Task(out, roots, str(base), None, options, threads=1)
