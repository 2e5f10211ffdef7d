"""`--batch auto`: what is tried, and what is chosen."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fcos_cli.data.training_set import Batch
from fcos_cli.distributed.world import World
from fcos_cli.model.head import RawOutputs
from fcos_cli.train import step
from fcos_cli.train.recipe import batch_size
from fcos_cli.train.recipe.batch_size import choose_batch, search, share_of_memory
from fcos_cli.train.run import Run
from fcos_cli.train.speed import estimate
from tests.train.runs import config_of, splits


class Machine:
    """Seconds per image by batch size; sizes above `fits` run out of memory."""

    def __init__(self, times: dict[int, float], *, fits: int = 999, share: float = 0.1, grows: float = 0.0) -> None:
        self.times, self.fits, self.share, self.grows, self.tried = times, fits, share, grows, list[int]()

    def __call__(self, batch: int) -> tuple[float, float]:
        self.tried.append(batch)
        if batch > self.fits:
            raise MemoryError("no")
        return self.times[batch], self.share + self.grows * batch


TIMES = {2: 0.2, 4: 0.11, 8: 0.1, 16: 0.104, 32: 0.12, 64: 0.2, 128: 0.3}


@pytest.mark.parametrize(
    ("machine", "largest", "chosen", "tried"),
    [
        (Machine(TIMES), 999, 16, [2, 4, 8, 16, 32, 64]),  # 64 is much slower: the search ends
        (Machine(TIMES), 8, 8, [2, 4, 8]),  # the data are few
        (Machine(TIMES, fits=8), 999, 8, [2, 4, 8, 16]),
        (Machine(TIMES, share=0.9), 999, 2, [2]),  # the memory is nearly used
        (Machine(TIMES, grows=0.1), 999, 4, [2, 4, 8]),  # 8 would take all of it
        (Machine(TIMES), 1, 2, [2]),
    ],
)
def test_the_largest_that_fits_and_is_not_slower_is_chosen(
    machine: Machine, largest: int, chosen: int, tried: list[int]
) -> None:
    assert search(machine, largest=largest) == chosen
    assert machine.tried == tried


def test_no_memory_for_the_smallest_batch_is_an_error() -> None:
    with pytest.raises(MemoryError):
        search(Machine(TIMES, fits=1), largest=64)


def test_real_sizes_are_measured(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_size, "SIZES", (2, 4))
    monkeypatch.setattr(batch_size, "STEPS_PER_EPOCH", 1)
    choose_batch(config_of(), *splits(shapes))
    told = capsys.readouterr().err
    assert "batch 2: " in told
    assert "batch 4: " in told


@pytest.mark.parametrize("fits", [1, 2])
def test_a_batch_that_is_computed_in_parts_does_not_fit(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fits: int
) -> None:
    forward = step._forward

    def scarce(run: Run, batch: Batch) -> RawOutputs:
        if len(batch.names) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(run, batch)

    monkeypatch.setattr(step, "_forward", scarce)
    monkeypatch.setattr(batch_size, "SIZES", (2, 4))
    monkeypatch.setattr(batch_size, "STEPS_PER_EPOCH", 1)
    monkeypatch.setattr(batch_size, "share_of_memory", lambda _: 0.1)
    assert choose_batch(config_of(), *splits(shapes)) == 2
    assert "batch 4: out of memory" in capsys.readouterr().err


def test_the_peak_of_a_gpu_is_not_that_of_a_batch_tried_before(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[torch.device] = []
    batches = SimpleNamespace(epoch=lambda _: [(0, None)], close=lambda: None)
    monkeypatch.setattr(estimate, "BatchStream", lambda _: batches)
    monkeypatch.setattr(estimate, "_twin", lambda run: run)
    monkeypatch.setattr(estimate, "optimizer_step", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    for name in ("cpu", "cuda"):
        run = SimpleNamespace(device=torch.device(name), progress=SimpleNamespace(epoch=0))
        estimate.step_seconds(run)  # type: ignore[arg-type]
    assert forgotten == [torch.device("cuda")]


def test_the_memory_of_a_gpu_is_compared_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 6 << 30)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 30, 16 << 30))  # others use 8 GB
    monkeypatch.setattr(batch_size, "available_memory", lambda: 500 << 30)
    assert share_of_memory(torch.device("cuda")) == 0.75


def test_the_memory_of_a_run_on_a_cpu_is_compared_with_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "peak_memory", lambda _: 3 << 30)
    monkeypatch.setattr(batch_size, "available_memory", lambda: 9 << 30)
    assert share_of_memory(torch.device("cpu")) == 0.25


def test_an_epoch_keeps_its_steps_also_in_several_processes(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(batch_size, "search", lambda _, *, largest: asked.append(largest))
    train, val = splits(shapes)
    many = replace(train, samples=train.samples * 100)
    for processes in (1, 4):
        monkeypatch.setattr(batch_size, "announced", lambda n=processes: World(size=n))
        choose_batch(config_of(), many, val)
    assert asked == [60, 15]
