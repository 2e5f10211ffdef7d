"""Two processes end together: whichever of them is told to stop, or dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fcos_cli.errors import Stopped
from fcos_cli.train.loop import train
from tests.train.runs import Recorder, config_of, splits

pytestmark = pytest.mark.slow

CODE = """
import os, signal, sys
from pathlib import Path
from fcos_cli.errors import FcosError
from fcos_cli.train import loop, signals, validation
from tests.train.runs import Recorder, config_of, splits

data, folder, victim, moment, number = Path(sys.argv[1]), Path(sys.argv[2]), *map(str, sys.argv[3:])
rank = int(os.environ["RANK"])

def strike():
    if rank == int(victim):
        os.kill(os.getpid(), int(number))

if moment == "step":
    true = loop.optimizer_step
    calls = []
    def spy(run, batch):
        calls.append(1)
        if len(calls) == 4:
            strike()
        return true(run, batch)
    loop.optimizer_step = spy
elif moment == "validation":
    true = loop.validate
    def spy(run):
        strike()
        return true(run)
    loop.validate = spy
elif moment == "waiting":
    true, validating, struck = signals.largest, validation.validate, []
    def spy(*values):
        answer = true(*values)
        if struck == [False]:
            struck[0] = True
            strike()  # after the others have been told that nothing came
        return answer
    def begin(run):
        struck.append(False)
        return validating(run)
    signals.largest, loop.validate = spy, begin
try:
    resume = moment == "resume"
    loop.train(config_of(batch=1, epochs=4), *splits(data), folder=folder, resume=resume, listener=Recorder())
except FcosError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def run_two(data: Path, folder: Path, *, victim: int, moment: str, number: int) -> list[tuple[int, str]]:
    """Exit codes and messages of both processes, which have to end within seconds of the signal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in facts.items()}}
        command = [sys.executable, "-c", CODE, str(data), str(folder), str(victim), moment, str(number)]
        root = Path(__file__).parent.parent.parent
        processes.append(subprocess.Popen(command, env=environ, cwd=root, stderr=subprocess.PIPE, text=True))
    ended = []
    for process in processes:
        _, errors = process.communicate(timeout=90)
        ended.append((process.returncode, errors))
    return ended


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("moment", ["step", "validation", "waiting"])
def test_sigterm_to_one_process_ends_both_with_the_state_saved(
    shapes: Path, tmp_path: Path, victim: int, moment: str
) -> None:
    started = time.monotonic()
    ended = run_two(shapes, tmp_path, victim=victim, moment=moment, number=signal.SIGTERM)
    assert [code for code, _ in ended] == [143, 143], ended
    assert all("the state is saved" in errors for _, errors in ended)
    assert time.monotonic() - started < 60
    progress = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    assert progress["step"] == (4 if moment == "step" else 3)
    assert progress["world"] == 2


def test_a_process_that_dies_takes_the_other_with_it(shapes: Path, tmp_path: Path) -> None:
    (died, _), (code, errors) = run_two(shapes, tmp_path, victim=0, moment="step", number=signal.SIGKILL)
    assert died == -signal.SIGKILL
    assert code == 1, errors
    assert "another process of this run has ended unexpectedly" in errors


def test_a_run_of_two_processes_goes_on_with_one(shapes: Path, tmp_path: Path) -> None:
    run_two(shapes, tmp_path, victim=1, moment="step", number=signal.SIGTERM)
    listener = Recorder()
    train(config_of(batch=1, epochs=4), *splits(shapes), folder=tmp_path, resume=True, listener=listener)
    # three steps of two images and a fourth one are done: four images of this epoch are left, and two more epochs
    assert len(listener.steps) == 4 + 2 * 6


def test_a_run_of_one_process_goes_on_with_two(shapes: Path, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    config, folder = config_of(batch=1, epochs=4), tmp_path
    with pytest.raises(Stopped):
        train(config, *splits(shapes), folder=folder, resume=False, listener=Recorder(on_step=stop))
    ended = run_two(shapes, folder, victim=0, moment="resume", number=0)
    assert [code for code, _ in ended] == [0, 0], ended
    progress = torch.load(folder / "state.pt", weights_only=True)["progress"]
    # two of the six images of the second epoch were seen: two steps of two processes are left in it
    assert (progress["finished"], progress["world"], progress["step"]) == (True, 2, 8 + 2 + 2 * 3)


def test_the_best_weights_of_an_earlier_session_are_validated_while_the_other_process_waits(
    shapes: Path, tmp_path: Path
) -> None:
    config = config_of(batch=1, epochs=1)
    train(config, *splits(shapes), folder=tmp_path, resume=False, listener=Recorder())
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    saved["progress"]["best"] = 0.9
    torch.save(saved, tmp_path / "state.pt")
    ended = run_two(shapes, tmp_path, victim=0, moment="resume", number=0)
    assert [code for code, _ in ended] == [0, 0], ended
    progress = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    assert (progress["finished"], progress["best"], progress["stale"]) == (True, 0.9, 3)
