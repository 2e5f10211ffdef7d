"""The process group: in one process its functions change nothing. `test_train` and `test_eval` start several."""

from types import SimpleNamespace

import pytest
import torch

from fcos_cli.distributed import group
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.train.signals import StopRequest, share_stop

CPU = torch.device("cpu")


def test_one_process_keeps_its_values_and_errors() -> None:
    assert group.from_main_process([1]) == [1]
    assert group.by_main_process(lambda: 2) == 2
    assert group.total(1, 2) == group.largest(1, 2) == [1, 2]
    group.check_alike({"data": "a"})
    group.raise_together(None)
    for block in (group.failing_together(), group.telling_others("fcos train"), group.join_world("fcos eval")):
        with pytest.raises(DataError, match="gone"), block:
            raise DataError("gone")
    with pytest.raises(DataError, match="gone"), group.join_world("fcos train", error=DataError("gone")):
        pass


def test_flags_travel_over_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, _: sent.append(tensor))
    stop = StopRequest()
    stop.receive(15, None)
    with torch.device("meta"):  # what would be made on a GPU
        assert group.any_process(True)
        assert group.total(3) == [3]
        assert share_stop(stop, done=True)
    assert [tensor.tolist() for tensor in sent] == [[1], [3], [15, 1]]


@pytest.mark.parametrize("text", ["0", "-1", "ten", "inf", "nan"])
def test_minutes_to_wait_are_a_number_above_0(text: str) -> None:
    with pytest.raises(UsageError, match="FCOS_WAIT_MINUTES"):
        group.wait_minutes({"FCOS_WAIT_MINUTES": text})


def test_minutes_to_wait() -> None:
    assert group.wait_minutes({}) == group.wait_minutes({"FCOS_WAIT_MINUTES": ""}) == 10
    assert group.wait_minutes({"FCOS_WAIT_MINUTES": "0.5"}) == 0.5


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"a": ["GPU-1", "GPU-2"], "b": ["GPU-3"]}, None),
        ({"a": [None, None], "b": [None]}, None),
        ({"a": ["GPU-1", "GPU-2"], "b": ["GPU-3", "GPU-4", None]}, "3 processes for 2 GPUs"),
        ({"a": ["GPU-1", "GPU-2"], "b": ["GPU-3", "GPU-3"]}, "2 processes for 1 GPU\n"),
    ],
)
def test_more_processes_than_gpus_are_an_error(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, list[str | None]], problem: str | None
) -> None:
    everyone = [(machine, gpu) for machine, gpus in found.items() for gpu in gpus]
    monkeypatch.setattr(group, "exchange", lambda _: everyone)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    if problem is None:
        group.check_own_gpus(CPU)
        return
    with pytest.raises(UsageError, match=problem) as caught:
        group.check_own_gpus(CPU)
    assert caught.value.where == "b"
    assert caught.value.shared


def test_each_process_tells_which_gpu_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []
    monkeypatch.setattr(group, "exchange", lambda gpu: [("a", told.append(gpu))])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"id of {device}"))
    for device in (CPU, torch.device("cuda:0")):
        group.check_own_gpus(device)
    assert told == [None, "id of cuda:0"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[pair.cc:547] Connection closed by peer [10.0.0.2]:4711", "has ended unexpectedly"),
        ("NCCL error in: NCCLUtils.cpp:94, remote process exited or there was a network error", "ended unexpectedly"),
        ("[unbound_buffer.cc:81] Timed out waiting 600000ms for recv operation", "not answered for 7 minutes"),
    ],
)
def test_what_torch_says_of_lost_processes_is_explained(said: str, told: str) -> None:
    with pytest.raises(FcosError, match=told) as caught, group._explaining_losses("fcos eval", 7.0):
        raise RuntimeError(said)
    assert "run the command again" in str(caught.value.remedy)
    with pytest.raises(RuntimeError, match="another problem"), group._explaining_losses("fcos train", 7.0):
        raise RuntimeError("another problem")
