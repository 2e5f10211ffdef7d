"""What torchrun announces: the ranks of a process, its GPU and its share of the cores."""

import pytest

from fcos_cli.console import say
from fcos_cli.distributed.world import World, announced, messages_of, threads_of, use_own_gpu
from fcos_cli.errors import UsageError

SECOND_OF_THIRD_HOST = {
    "WORLD_SIZE": "6",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29500",
}


def test_the_announcement_of_torchrun() -> None:
    world = announced(SECOND_OF_THIRD_HOST)
    assert world == World(rank=5, size=6, local_rank=1, local_size=2)
    assert not world.main
    assert announced({**SECOND_OF_THIRD_HOST, "RANK": "0"}).main


@pytest.mark.parametrize("environ", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": ""}])
def test_without_an_announcement_there_is_one_process(environ: dict[str, str]) -> None:
    assert announced(environ) == World()


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_half_an_announcement_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match=f"WORLD_SIZE is 6, but {name} is not set"):
        announced({key: value for key, value in SECOND_OF_THIRD_HOST.items() if key != name})


def test_a_rank_that_is_no_number_is_an_error() -> None:
    with pytest.raises(UsageError, match="LOCAL_RANK is 'one', not a number"):
        announced({**SECOND_OF_THIRD_HOST, "LOCAL_RANK": "one"})


@pytest.mark.parametrize(
    ("listed", "local_rank", "expected"),
    [(None, 1, "1"), ("4,7", 0, "4"), ("4,7", 1, "7"), ("GPU-8a,GPU-9b", 1, "GPU-9b"), ("", 0, ""), ("", 1, "")],
)
def test_each_process_sees_its_own_gpu(listed: str | None, local_rank: int, expected: str) -> None:
    environ = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    use_own_gpu(World(rank=local_rank, size=2, local_rank=local_rank, local_size=2), environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == expected


def test_a_process_that_is_alone_on_its_machine_keeps_all_gpus_and_cores() -> None:
    environ: dict[str, str] = {}
    alone = World(rank=1, size=2, local_rank=0, local_size=1)
    use_own_gpu(alone, environ)
    assert environ == {}
    assert threads_of(alone) is None


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(7), raising=False)
    assert [threads_of(World(0, n, 0, n)) for n in (2, 3, 8)] == [3, 2, 1]


def test_only_the_main_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for rank in range(2):
        with messages_of(World(rank=rank, size=2)):
            say(f"rank {rank}")
    assert capsys.readouterr().err == "rank 0\n"
