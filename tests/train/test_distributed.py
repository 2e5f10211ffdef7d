"""Distributed training: without torchrun nothing changes; two processes equal one with twice the batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fcos_cli.distributed.group import any_process, join_world
from fcos_cli.distributed.world import World
from fcos_cli.model.losses import mean_over_processes
from fcos_cli.train.loop import train
from tests.train.runs import Recorder, config_of, same, splits

pytestmark = pytest.mark.slow

SETTINGS = {"optimizer": "sgd", "lr": 0.02}

CODE = f"""
import sys
from pathlib import Path
from fcos_cli.train import loop, run
from fcos_cli.train.checkpoint import save_state
from tests.train.runs import Recorder, config_of, splits

data, folder = map(Path, sys.argv[1:])

def save(self, *, apart=0):
    save_state(folder / str(self.world.rank), self.parts, self.progress, data_hash=self.data_hash, tuning={{}})

run.Run.save = save
loop.train(config_of(batch=1, **{SETTINGS}), *splits(data), folder=folder, resume=False, listener=Recorder())
"""


def start(data: Path, folder: Path, *, rank: int, port: int) -> subprocess.Popen[str]:
    """One of two processes that share 6 images, one per step. Writes its final state to `folder`."""
    facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in facts.items()}}
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", CODE, str(data), str(folder)]
    return subprocess.Popen(command, env=environ, cwd=root, stderr=subprocess.PIPE, text=True)


def test_two_processes_equal_one_process_with_twice_the_batch(shapes: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(shapes, tmp_path, rank=rank, port=port) for rank in range(2)]
    train(config_of(batch=2, **SETTINGS), *splits(shapes), folder=tmp_path / "one", resume=False, listener=Recorder())
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    first, second, alone = (
        torch.load(tmp_path / name, weights_only=True) for name in ("0/state.pt", "1/state.pt", "one/state.pt")
    )
    assert first["progress"]["step"] == alone["progress"]["step"] == 6
    for part in ("model", "average", "optimizer"):
        assert same(first[part], second[part])
    for key, weight in alone["model"].items():
        torch.testing.assert_close(first["model"][key], weight, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "best.safetensors").is_file()


GRADIENTS = """
import os, sys
from pathlib import Path
import torch
from fcos_cli.model.targets import Truth
from fcos_cli.runtime.pytorch import pick_device
from fcos_cli.distributed.group import join_world
from fcos_cli.train.batches import image_loader
from fcos_cli.train.run import open_run
from fcos_cli.train.step import accumulate_gradients
from fcos_cli.data.training_set import EpochBatches
from tests.train.runs import Recorder, config_of, splits

data, folder = map(Path, sys.argv[1:3])
by_centerness = bool(int(sys.argv[3]))
with join_world("fcos train") as world:
    config = config_of(batch=4 // world.size, box_by_centerness=by_centerness, accumulate=int(sys.argv[4]))
    sets = splits(data)
    with open_run(config, *sets, folder, world=world) as run:
        run.parts.model.train()
        batch = 4 // world.size
        keys = EpochBatches(len(sets[0]), batch=batch, seed=0, epoch=0, rank=world.rank, world=world.size).batches[:1]
        (images,) = image_loader(run, keys)
        classes = images.truth.classes.clone()
        if world.size == 1 or world.rank == 1:
            classes[-1] = -1  # the last image has no objects
        images = images._replace(truth=Truth(images.truth.boxes, classes, images.truth.ignore))
        accumulate_gradients(run, images)
        found = {n: p.grad for n, p in run.parts.model.named_parameters() if p.grad is not None}
        torch.save(found, folder / f"gradients-{world.size}-{world.rank}.pt")
"""


@pytest.mark.parametrize(("by_centerness", "parts"), [(0, 1), (1, 1), (0, 2)])
def test_gradients_of_two_processes_equal_those_of_one_with_twice_the_batch(
    shapes: Path, tmp_path: Path, by_centerness: int, parts: int
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for world in (2, 1):
        for rank in range(world):
            facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
            environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in facts.items()}}
            folder = tmp_path / str(world)
            folder.mkdir(exist_ok=True)
            options = [str(by_centerness), str(parts if world == 2 else 1)]
            command = [sys.executable, "-c", GRADIENTS, str(shapes), str(folder), *options]
            root = Path(__file__).parent.parent.parent
            processes.append(subprocess.Popen(command, env=environ, cwd=root, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    names = ("2/gradients-2-0.pt", "2/gradients-2-1.pt", "1/gradients-1-0.pt")
    first, second, alone = (torch.load(tmp_path / name, weights_only=True) for name in names)
    for name, gradient in alone.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - gradient).norm() <= 1e-6 * max(1.0, float(gradient.norm())), name


def test_without_torchrun_there_is_one_main_process() -> None:
    for environ in ({}, {"WORLD_SIZE": "1", "RANK": "0"}):
        with join_world("fcos train", environ=environ) as world:
            assert world == World(rank=0, size=1, local_rank=0)
            assert world.main
            assert not torch.distributed.is_initialized()
    assert not World(rank=1, size=2, local_rank=1).main


def test_any_process_of_one_process_returns_its_flag() -> None:
    assert any_process(True) is True
    assert any_process(False) is False
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = mean_over_processes(value)
    assert mean.tolist() == [1, 2]
    assert not mean.requires_grad
    assert mean.data_ptr() != value.data_ptr()
