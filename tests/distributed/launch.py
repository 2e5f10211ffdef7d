"""Starts the processes of a run, each where torchrun would, and says how they ended.

They are forked from one process that has imported everything, since imports take seconds in each. `hosts` makes two
network namespaces, which are two machines as far as the network is concerned.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
NEW_NET = 0x40000000  # CLONE_NEWNET


class Host(NamedTuple):
    """A machine. namespace: None = this machine."""

    namespace: str | None = None
    address: str = "127.0.0.1"
    interface: str = "lo"


class Process(NamedTuple):
    """A command line to run: of fcos, or of torchrun."""

    arguments: Sequence[object]
    program: str = "fcos"
    host: Host = Host()
    folder: Path = ROOT
    environ: dict[str, str] | None = None


class Strike(NamedTuple):
    """What happens to a process once `file` exists.

    number: a signal to it, SIGKILL to all processes of its host; None: its network cable is pulled.
    """

    victim: int
    file: Path
    number: int | None


class Ended(NamedTuple):
    """seconds: after the strike, or else after the start."""

    code: int
    out: str
    err: str
    seconds: float


Launch = tuple[Sequence[Process], Strike | None]


def ranks(*processes: Process) -> list[Process]:
    """The processes with what torchrun tells them: each is one of several on its host."""
    free = free_port()
    hosts = [process.host for process in processes]
    announced = []
    for rank, process in enumerate(processes):
        facts = {
            "RANK": rank,
            "WORLD_SIZE": len(processes),
            "LOCAL_RANK": hosts[:rank].count(process.host),
            "LOCAL_WORLD_SIZE": hosts.count(process.host),
            "MASTER_ADDR": hosts[0].address,
            "MASTER_PORT": free,
            "GLOO_SOCKET_IFNAME": process.host.interface,
        }
        told = {name: str(value) for name, value in facts.items()}
        announced.append(process._replace(environ={**told, **(process.environ or {})}))
    return announced


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Launcher:
    """The process that has imported everything. Close it at the end."""

    def __init__(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FCOS_")}
        environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.launch"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ
        )

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def run(self, *launches: Launch, seconds: float = 300) -> list[list[Ended]]:
        """Run the launches one after the other, the processes of each at the same time. seconds: for all of them."""
        given = [
            ([process._replace(arguments=[*map(str, process.arguments)]) for process in processes], strike)
            for processes, strike in launches
        ]
        pipes = self.process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        pipes.stdin.write(json.dumps(given, default=str) + "\n")
        pipes.stdin.flush()
        ready, _, _ = select.select([pipes.stdout], [], [], seconds)
        assert ready, f"not at their end after {seconds:g} s"
        return [[Ended(*ended) for ended in launch] for launch in json.loads(pipes.stdout.readline())]


def alone(*processes: Process) -> Launch:
    return ranks(*processes), None


@contextmanager
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two machines with a cable between them; twice this one where no namespaces can be made."""
    names = [f"fcos{os.getpid()}{letter}" for letter in "ab"]
    try:
        for command in (
            f"ip netns add {names[0]}",
            f"ip netns add {names[1]}",
            f"ip -n {names[0]} link add cable type veth peer name cable netns {names[1]}",
            *(f"ip -n {name} addr add 10.77.0.{i}/24 dev cable" for i, name in enumerate(names, 1)),
            *(f"ip -n {name} link set {device} up" for name in names for device in ("lo", "cable")),
        ):
            subprocess.run(command.split(), check=True, capture_output=True)
        yield Host(names[0], "10.77.0.1", "cable"), Host(names[1], "10.77.0.2", "cable")
    except (OSError, subprocess.CalledProcessError):
        yield Host(), Host()
    finally:
        if shutil.which("ip"):
            for name in names:
                for left in processes_of(name):
                    os.kill(left, signal.SIGKILL)
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def processes_of(namespace: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(number) for number in found.stdout.split()]


def main() -> None:
    """Run the launches of each line on stdin; print a line of how their processes ended."""
    import fcos_cli.cli
    import fcos_cli.evaluate.run
    import fcos_cli.runtime.onnxruntime
    import fcos_cli.train.start  # noqa: F401

    for line in sys.stdin:
        print(json.dumps([_run(*launch) for launch in json.loads(line)]), flush=True)  # noqa: T201


def _run(processes: list[list[Any]], strike: list[Any] | None) -> list[Ended]:
    """Processes and strike are their tuples, as lists."""
    started = time.monotonic()
    logs = [(os.memfd_create("out"), os.memfd_create("err")) for _ in processes]
    children = []
    for process, log in zip(processes, logs, strict=True):
        child = os.fork()
        if child == 0:
            _become(process, log)
        children.append(child)
    ended: dict[int, tuple[int, float]] = {}
    while len(ended) < len(children):
        if strike is not None and Path(strike[1]).exists():
            _strike(children[strike[0]], processes[strike[0]][2][0], strike[2])
            strike, started = None, time.monotonic()
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            ended[children.index(child)] = os.waitstatus_to_exitcode(status), time.monotonic() - started
        else:
            time.sleep(0.01)
    texts = [[Path(f"/proc/self/fd/{fd}").read_text() for fd in log] for log in logs]
    return [Ended(ended[i][0], *texts[i], ended[i][1]) for i in range(len(children))]


def _strike(child: int, namespace: str | None, number: int | None) -> None:
    if number is not None:
        victims = processes_of(namespace) if namespace and number == signal.SIGKILL else [child]
        for victim in victims:
            os.kill(victim, number)
    else:
        subprocess.run(["ip", "-n", str(namespace), "link", "set", "cable", "down"], check=True)


def _become(process: list[Any], log: tuple[int, int]) -> None:
    """Turn this fork into the process. Does not return."""
    arguments, program, (namespace, *_), folder, environ = process
    code: Any = 0
    libc = ctypes.CDLL(None)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a fork ends with the process that made it
    try:
        if namespace is not None:
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            assert libc.setns(handle, NEW_NET) == 0
        for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), *log)):
            os.dup2(fd, number)
        os.environ.update(environ or {})
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = [program, *arguments]
        if program == "torchrun":
            from torch.distributed.run import main as run_program

            run_program(arguments)
        else:
            from fcos_cli.cli import main as run_program

            run_program()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
