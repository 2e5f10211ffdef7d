"""Shares of the images, and the rounds in which processes go through them. Here the processes are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.distributed import group
from fcos_cli.distributed.world import World
from fcos_cli.errors import DataError, FcosError
from fcos_cli.evaluate import sharded
from fcos_cli.evaluate.sharded import detect_together, share_of
from fcos_cli.predict.pipeline import Failure
from fcos_cli.runtime.open import open_detector
from tests.runtime.onnx_files import FACTS


@pytest.mark.parametrize(
    ("count", "batch", "world", "shares"),
    [
        (5, 2, 2, [[0, 1, 4], [2, 3]]),
        (7, 2, 3, [[0, 1, 6], [2, 3], [4, 5]]),
        (4, 1, 3, [[0, 3], [1], [2]]),
        (2, 1, 3, [[0], [1], []]),  # more processes than images
        (3, 8, 2, [[0, 1, 2], []]),  # one batch
        (0, 8, 2, [[], []]),
    ],
)
def test_shares_are_whole_batches(count: int, batch: int, world: int, shares: list[list[int]]) -> None:
    found = [share_of(range(count), batch=batch, rank=rank, world=world) for rank in range(world)]
    assert found == shares


def test_every_image_is_in_one_share_and_in_the_batch_that_one_process_makes() -> None:
    for count in range(20):
        for batch in (1, 2, 3, 8):
            whole = {tuple(range(first, min(first + batch, count))) for first in range(0, count, batch)}
            for world in (1, 2, 3, 5):
                shares = [share_of(range(count), batch=batch, rank=rank, world=world) for rank in range(world)]
                parts = [tuple(s[first : first + batch]) for s in shares for first in range(0, len(s), batch)]
                assert sorted(parts) == sorted(whole)
                assert max(map(len, shares)) - min(map(len, shares)) <= batch


@pytest.mark.parametrize(
    ("backend", "installed", "version"),
    [
        ("tensorrt", {"tensorrt-rtx-cu13-bindings": "1.2"}, "tensorrt-rtx-cu13-bindings 1.2"),
        ("onnxruntime", {"onnxruntime-gpu": "1.22"}, "onnxruntime-gpu 1.22"),
        ("onnxruntime", {}, ""),
    ],
)
def test_versions_of_backends_under_another_name_are_compared(
    monkeypatch: pytest.MonkeyPatch, shapes: Path, backend: str, installed: dict[str, str], version: str
) -> None:
    compared: dict[str, str] = {}
    monkeypatch.setattr(group, "check_alike", compared.update)
    monkeypatch.setattr(sharded, "versions", lambda names: {n: v for n, v in installed.items() if n in names})
    detector: Any = SimpleNamespace(name="m", backend=backend, facts=FACTS, device="cuda:0", precision="fp32")
    sharded.check_alike([detector], read_dataset(shapes), batch=8, lowest=0.0, tiling=None)
    assert compared[f"version of {backend}"] == version


def test_two_models_of_the_same_name_are_compared_each_with_its_device(
    monkeypatch: pytest.MonkeyPatch, shapes: Path
) -> None:
    compared: dict[str, str] = {}
    monkeypatch.setattr(group, "check_alike", compared.update)
    models: list[Any] = [
        SimpleNamespace(name="m", backend="onnxruntime", facts=FACTS, device=device, precision="fp32")
        for device in ("cpu", "cuda:0")
    ]
    sharded.check_alike(models, read_dataset(shapes), batch=8, lowest=0.0, tiling=None)
    assert compared["device of model 1, m"] == "cpu in fp32"
    assert compared["device of model 2, m"] == "cuda in fp32"


class Threads:
    """A process group of threads, in place of the functions of `distributed.group`."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier = size, threading.Barrier(size, timeout=20)
        self.given: dict[int, Any] = {}
        self.rank = threading.local()

    def gather(self, value: Any) -> list[Any]:
        self.given[self.rank.number] = value
        self.barrier.wait()
        everyone = [self.given[rank] for rank in range(self.size)]
        self.barrier.wait()
        return everyone

    def total(self, *values: float) -> list[float]:
        return [sum(column) for column in zip(*self.gather(values), strict=True)]

    def raise_together(self, error: FcosError | None) -> None:
        for theirs in self.gather(error):
            if theirs is not None:
                raise theirs

    def sent_to_main(self, value: Any) -> Any:
        everyone = self.gather(value)
        return iter(everyone) if self.rank.number == 0 else iter(())


@pytest.fixture
def small(shapes: Path) -> Dataset:
    """Seven images."""
    whole = read_dataset(shapes, split="train")
    return replace(whole, samples=whole.samples[:7])


def run_threads(
    size: int,
    dataset: Dataset,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    batch: int,
    on_unreadable: Callable[[Failure], None] | None = None,
) -> tuple[list[Any], list[list[tuple[int, int]]]]:
    """What each of `size` processes returns, or the error that it raises; and the progress that it reports."""
    threads, detector = Threads(size), open_detector(model)
    for name in ("total", "raise_together", "sent_to_main"):
        monkeypatch.setattr(group, name, getattr(threads, name))
    progress: list[list[tuple[int, int]]] = [[] for _ in range(size)]

    def run(rank: int) -> Any:
        threads.rank.number = rank
        try:
            return detect_together(
                detector,
                dataset,
                batch=batch,
                tiling=None,
                world=World(rank, size),
                on_progress=lambda done, total: progress[rank].append((done, total)),
                on_unreadable=on_unreadable,
            )
        except FcosError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size))), progress


def as_bytes(detections: list[Any]) -> list[tuple[bytes, ...]]:
    return [(d.boxes.tobytes(), d.scores.tobytes(), d.classes.tobytes()) for d in detections]


@pytest.mark.parametrize(("size", "batch"), [(2, 2), (3, 3), (9, 1)])
def test_the_main_process_gets_what_one_process_would_find(
    size: int, batch: int, small: Dataset, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = open_detector(model_file)
    alone, notes = detect_together(
        detector, small, batch=batch, tiling=None, world=World(), on_progress=lambda *_: None
    )
    results, progress = run_threads(size, small, model_file, monkeypatch, batch=batch)
    found, its_notes = results[0]
    assert as_bytes(found) == as_bytes(alone)
    assert sum(len(d) for d in found) > 50
    assert its_notes == notes
    assert all(others == ([], notes) for others in results[1:])
    assert all(steps == progress[0] for steps in progress)
    assert progress[0][-1] == (7, 7)


@pytest.mark.parametrize("broken", [0, 3, 6])
def test_an_image_that_cannot_be_read_ends_all_processes(
    broken: int, small: Dataset, model_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    samples = [replace(s, image=bad) if i == broken else s for i, s in enumerate(small.samples)]
    results, _ = run_threads(3, replace(small, samples=samples), model_file, monkeypatch, batch=1)
    assert all(isinstance(result, DataError) and "bad.jpg" in str(result.where) for result in results)


def test_images_that_may_be_left_out_are_told_once_and_the_others_are_found(
    small: Dataset, model_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    samples = [replace(s, image=tmp_path / f"{i}.jpg") if i in (1, 6) else s for i, s in enumerate(small.samples)]
    unreadable: list[Failure] = []
    damaged = replace(small, samples=samples)
    results, _ = run_threads(3, damaged, model_file, monkeypatch, batch=1, on_unreadable=unreadable.append)
    assert sorted(str(failure.source) for failure in unreadable) == [str(samples[i].image) for i in (1, 6)]
    assert [bool(len(found)) for found in results[0][0]] == [i not in (1, 6) for i in range(7)]


def test_an_error_after_the_last_round_is_shared_too(
    small: Dataset, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = sharded.collect_detections

    def fail_late(detector: Any, dataset: Dataset, **options: Any) -> Any:
        found = true(detector, dataset, **options)
        if dataset.samples[0] is small.samples[1]:  # the share of the second process
            raise DataError("too late")
        return found

    monkeypatch.setattr(sharded, "collect_detections", fail_late)
    even = replace(small, samples=small.samples[:6])
    results, _ = run_threads(3, even, model_file, monkeypatch, batch=1)
    assert [str(result) for result in results] == ["too late"] * 3
