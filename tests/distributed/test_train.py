"""`fcos train` on two hosts that share no disk: as one process would, and what happens when one host is lost."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from fcos_cli.config import Config, to_toml
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.model.artifact import load
from tests.distributed.launch import Ended, Host, Launch, Launcher, Process, Strike, free_port, hosts, ranks
from tests.train.runs import SETTINGS

pytestmark = pytest.mark.slow


def settings(path: Path, *, batch: int, epochs: int) -> Path:
    train = {**SETTINGS["train"], "optimizer": "sgd", "lr": 0.02, "batch": batch, "epochs": epochs, "val_every": 100}
    path.write_text(to_toml(Config.model_validate({**SETTINGS, "train": train})), encoding="utf-8")
    return path


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of each host."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    return first, second


def test_torchrun_on_two_hosts_trains_as_one_process_would(
    launcher: Launcher, shapes: Path, disks: tuple[Path, Path]
) -> None:
    alone = ["train", shapes, "--config", settings(disks[0] / "one.toml", batch=2, epochs=4), "--out", "one"]
    train = ["train", shapes, "--config", settings(disks[0] / "two.toml", batch=1, epochs=4), "--out", "two"]
    with hosts() as pair:
        found = ["--master-addr", pair[0].address, "--master-port", free_port()]
        agents = [
            Process(
                [
                    *("--nnodes=2", "--nproc-per-node=1", "--node-rank", rank, *found),
                    *("--no-python", sys.executable, "-m", "fcos_cli", *train),
                ],
                program="torchrun",
                host=host,
                folder=disk,
                environ={"GLOO_SOCKET_IFNAME": host.interface},
            )
            for rank, (host, disk) in enumerate(zip(pair, disks, strict=True))
        ]
        two, one = launcher.run((agents, None), ([Process(alone, folder=disks[0])], None))
    assert [ended.code for ended in (*two, *one)] == [0, 0, 0], two
    rows = [
        [json.loads(line) for line in (disks[0] / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for mine, theirs in zip(*rows, strict=True):
        for key in {"step", "epoch", "lr", "loss", "cls", "box", "centerness", "AP"} & mine.keys():
            assert theirs[key] == pytest.approx(mine[key], rel=1e-3), (key, mine, theirs)
    single, shared = (load(disks[0] / name / "last.safetensors").weights for name in ("one", "two"))
    assert all((shared[key] - weight).abs().max() <= 1e-3 for key, weight in single.items())
    assert (disks[0] / "two/report.html").is_file()
    assert list(disks[1].iterdir()) == []


def test_two_hosts_end_together_and_go_on_together(
    launcher: Launcher, shapes: Path, disks: tuple[Path, Path], tmp_path: Path
) -> None:
    long = settings(tmp_path / "long.toml", batch=1, epochs=500)
    other = write_shapes(tmp_path / "other", train=12, val=4, size=64, seed=1)
    new, resume = ["train", shapes, "--config", long, "--out"], ["train", "--resume", "told"]

    with hosts() as pair:

        def both(first: list[object], second: list[object], *, swapped: bool = False) -> list[Process]:
            folders = disks[::-1] if swapped else disks
            commands = zip((first, second), pair, folders, strict=True)
            return ranks(*(Process(arguments, host=host, folder=folder) for arguments, host, folder in commands))

        def struck(name: str, victim: int, number: int) -> Launch:
            return both([*new, name], [*new, name]), Strike(victim, disks[0] / name / "state.pt", number)

        told, longer, moved, data, command, crowd, killed = launcher.run(
            struck("told", 1, signal.SIGTERM),
            (both([*resume, "--epochs", 1], [*resume, "--epochs", 1]), None),
            (both(resume, resume, swapped=True), None),
            (both([*new, "x"], ["train", other, "--config", long, "--out", "x"]), None),
            (both([*new, "x"], resume), None),
            (both([*new, "x", "--batch", 8], [*new, "x", "--batch", 8]), None),
            struck("killed", 1, signal.SIGKILL),
        )
    assert codes(told) == [143, 143], told
    assert all(ended.seconds < 30 for ended in told)
    assert "the state is saved" in told[0].err
    assert codes(longer) == [0, 0], longer
    assert (disks[0] / "told/best.safetensors").is_file()
    for ends, words in (
        (moved, "the run folder is not on the machine of rank 0"),
        (data, "do not have the same training data"),
        (command, "fcos train for rank 0"),
        (crowd, "a batch of 8 in each of 2 processes is larger than the training data (12 images)"),
    ):
        assert codes(ends) == [2, 2], ends
        assert words in ends[0].err
    for _, second in (told, longer, moved, data, command, crowd):
        assert "error" not in second.err
    assert codes(killed) == [1, -signal.SIGKILL], killed
    assert "another process of this run has ended unexpectedly" in killed[0].err
    assert killed[0].seconds < 30
    assert list(disks[1].iterdir()) == []


def codes(ends: list[Ended]) -> list[int]:
    return [ended.code for ended in ends]


def test_a_host_that_falls_silent_is_an_error_after_the_time_to_wait(
    launcher: Launcher, shapes: Path, disks: tuple[Path, Path]
) -> None:
    new = ["train", shapes, "--config", settings(disks[0] / "c.toml", batch=1, epochs=500), "--out", disks[0] / "run"]
    with hosts() as pair:
        if pair[0] == Host():
            pytest.skip("no network namespaces can be made here")
        processes = [Process(new, host=host, environ={"FCOS_WAIT_MINUTES": "0.2"}) for host in pair]
        (ends,) = launcher.run((ranks(*processes), Strike(1, disks[0] / "run/state.pt", None)))
    assert codes(ends) == [1, 1], ends
    for ended in ends:
        assert "another process of this run has not answered for 0.2 minutes" in ended.err
        assert 5 < ended.seconds < 60
