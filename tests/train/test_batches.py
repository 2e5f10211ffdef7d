"""The order of a run's batches, and the processes that load them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import ImageFile
from torch.utils import data as torch_data

from fcos_cli.config import to_toml
from fcos_cli.data.samples import Dataset
from fcos_cli.data.training_set import Batch, EpochBatches, Key, TrainingSet
from fcos_cli.distributed.world import World
from fcos_cli.errors import FcosError, Stopped
from fcos_cli.train import batches
from fcos_cli.train.batches import BatchStream, explaining_deaths, image_loader, positions
from fcos_cli.train.run import Run, open_run
from fcos_cli.train.signals import catching_signals
from tests.train.runs import config_of, splits


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


@contextmanager
def opened(data: tuple[Dataset, Dataset], folder: Path, *, workers: int = 0) -> Iterator[Run]:
    with open_run(config_of(batch=2, workers=workers), *data, folder) as run:
        yield run


def order(epoch: int) -> list[list[Key]]:
    return EpochBatches(6, batch=2, seed=0, epoch=epoch).batches


def names(data: tuple[Dataset, Dataset], keys: list[Key]) -> list[str]:
    return [str(data[0].samples[key.number].image) for key in keys]


def test_every_epoch_has_its_own_order_without_end(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    with opened(data, tmp_path) as run:
        found = list(islice(positions(run), 9))
    keys = [[key._replace(alone=False) for key in position.keys] for position in found]
    assert keys == [*order(0), *order(1), *order(2)]
    assert [(position.epoch, position.number) for position in found] == [(e, n) for e in range(3) for n in range(3)]


def test_positions_go_on_where_the_run_was_without_what_it_leaves_out(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    with opened(data, tmp_path) as run:
        run.progress.epoch, run.progress.step_in_epoch, run.progress.skipped = 1, 1, [[1, 2], [0, 1], [2, 0]]
        found = positions(run)
        run.progress.epoch = 7  # positions are those of the moment at which they were asked for
        assert [(position.epoch, position.number) for position in islice(found, 4)] == [(1, 1), (2, 1), (2, 2), (3, 0)]


@pytest.mark.parametrize(("share", "first"), [(0.0, None), (0.15, (5, 1)), (0.5, (3, 0)), (1.0, (0, 0))])
def test_in_the_last_part_of_a_run_images_come_alone(
    data: tuple[Dataset, Dataset], tmp_path: Path, share: float, first: tuple[int, int] | None
) -> None:
    config = config_of(batch=2, epochs=6)
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"close_mosaic": share})})
    with open_run(config, *data, tmp_path) as run:
        found = list(islice(positions(run), 18))  # 6 epochs of 3 steps
    alone = [(position.epoch, position.number) for position in found if position.keys[0].alone]
    assert alone == [place for place in ((e, n) for e in range(6) for n in range(3)) if first and place >= first]
    assert all(key.alone == position.keys[0].alone for position in found for key in position.keys)


def test_with_a_time_limit_images_come_alone_when_the_schedule_nears_its_end(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    with open_run(config_of(batch=2, time=600), *data, tmp_path) as run:
        ahead = positions(run)
        assert not next(ahead).keys[0].alone
        run.parts.schedule.progress = 0.84
        assert not next(ahead).keys[0].alone
        run.parts.schedule.progress = 0.86
        assert next(ahead).keys[0].alone


def test_in_the_cool_down_of_a_run_that_ends_early_images_come_alone(
    data: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    with opened(data, tmp_path) as run:
        assert not next(positions(run)).keys[0].alone
        run.progress.end = 4
        assert next(positions(run)).keys[0].alone


def test_after_a_pending_validation_comes_the_next_epoch(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    with opened(data, tmp_path) as run:
        run.progress.epoch, run.progress.step_in_epoch, run.progress.pending_validation = 1, 2, True
        assert [(position.epoch, position.number) for position in islice(positions(run), 2)] == [(2, 0), (2, 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_batches_epoch_by_epoch(data: tuple[Dataset, Dataset], tmp_path: Path, workers: int) -> None:
    with opened(data, tmp_path, workers=workers) as run:
        stream = BatchStream(run)
        for epoch in range(2):
            found = [(number, batch.names) for number, batch in stream.epoch(epoch)]
            assert found == [(number, names(data, keys)) for number, keys in enumerate(order(epoch))]
        assert next(stream.epoch(2))[1].names == names(data, order(2)[0])
        run.progress.epoch, run.progress.step_in_epoch = 1, 2
        stream.restart()
        assert [batch.names for _, batch in stream.epoch(1)] == [names(data, order(1)[2])]
        assert list(stream.epoch(1)) == []


def test_loader_processes_are_started_once(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    original = torch_data.DataLoader.__iter__

    def counted(self: torch_data.DataLoader[object]) -> object:
        started.append(self)
        return original(self)

    monkeypatch.setattr(torch_data.DataLoader, "__iter__", counted)
    with opened(data, tmp_path) as run:
        stream = BatchStream(run)
        for epoch in range(4):
            assert len(list(stream.epoch(epoch))) == 3
    assert len(started) == 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has
@pytest.mark.parametrize(("cores", "processes", "workers"), [(8, 1, 4), (8, 4, 1), (2, 2, 1), (64, 2, 8), (1, 1, 1)])
def test_loader_processes_share_the_cores_that_may_be_used(
    data: tuple[Dataset, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    processes: int,
    workers: int,
) -> None:
    monkeypatch.setattr(batches, "allowed_cores", lambda: cores)
    with opened(data, tmp_path, workers=-1) as run:
        run = replace(run, world=World(size=processes, local_size=processes))
        assert image_loader(run, []).num_workers == workers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_signal_ends_the_wait_for_a_loader_that_hangs(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(data, tmp_path, workers=1) as run, catching_signals() as stop:
        monkeypatch.setattr(TrainingSet, "__getitem__", lambda *_: time.sleep(600))
        stream = BatchStream(replace(run, stop=stop))
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        started = time.monotonic()
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            next(stream.epoch(0))
        assert time.monotonic() - started < 20
        assert (tmp_path / "state.pt").is_file()
        stream.close()
    assert multiprocessing.active_children() == []


def test_a_signal_while_an_image_is_decoded_does_not_make_it_a_damaged_one(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(image: ImageFile.ImageFile) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail(f"{image} was decoded")

    with opened(data, tmp_path) as run, catching_signals() as stop:
        monkeypatch.setattr(ImageFile.ImageFile, "load", load)
        stream = BatchStream(replace(run, stop=stop))
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            next(stream.epoch(0))
        assert (tmp_path / "state.pt").is_file()


def test_other_processes_outlive_a_stream(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    with opened(data, tmp_path, workers=1) as run:
        stream = BatchStream(run)
        next(stream.epoch(0))
        other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        other.start()
        try:
            stream.close()
            assert multiprocessing.active_children() == [other]
        finally:
            other.kill()
            other.join()


@pytest.mark.slow
def test_a_loader_that_is_killed_is_one_error(shapes: Path, tmp_path: Path) -> None:
    # in a process of its own: torch raises the death of a loader at any moment, also in pytest
    (tmp_path / "tiny.toml").write_text(to_toml(config_of(batch=2, epochs=1000, val_every=1000, tracker="none")))
    command = [sys.executable, "-m", "fcos_cli", "train", str(shapes), "--config", str(tmp_path / "tiny.toml")]
    command += ["--workers", "1", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        metrics = tmp_path / "run" / "metrics.jsonl"
        for _ in range(1200):
            if metrics.is_file() and metrics.stat().st_size:
                break
            time.sleep(0.1)
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a data loader process was killed" in errors
    assert "--workers 0" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_full_dev_shm_is_one_error(shapes: Path, tmp_path: Path) -> None:
    alone = ["unshare", "--mount", "--map-root-user"]  # only this process sees the small one
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare may not make a mount namespace here")
    (tmp_path / "tiny.toml").write_text(to_toml(config_of(batch=2, epochs=2, val_every=2, tracker="none")))
    small = 'mount -t tmpfs -o size=128k tmpfs /dev/shm && exec "$@"'
    command = [*alone, "sh", "-c", small, "small", sys.executable, "-m", "fcos_cli", "train", str(shapes)]
    command += [
        "--config",
        str(tmp_path / "tiny.toml"),
        "--workers",
        "1",
        "--size",
        "256",
        "--out",
        str(tmp_path / "run"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "a data loader process ran out of shared memory" in ended.stderr
    assert "--shm-size" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "text", ["unable to allocate shared memory(shm) for file", "worker (pid 3) is killed by signal: Bus error."]
)
def test_too_little_shared_memory_is_named(text: str) -> None:
    with pytest.raises(FcosError, match="ran out of shared memory") as error, explaining_deaths():
        raise RuntimeError(text)
    assert "--shm-size" in str(error.value.remedy)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_death_in_the_middle_of_a_batch_is_named(
    data: tuple[Dataset, Dataset], tmp_path: Path, error: Exception
) -> None:
    def broken() -> Iterator[Batch]:
        raise error
        yield

    with opened(data, tmp_path) as run:
        stream = BatchStream(run)
        stream.loaded = broken()
        with pytest.raises(FcosError, match="a data loader process was killed"), explaining_deaths():
            next(stream.epoch(0))
        stream.close()


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explaining_deaths():
        raise RuntimeError("shapes differ")
