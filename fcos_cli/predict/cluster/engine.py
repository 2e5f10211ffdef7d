"""Ray: joining or starting a cluster, and running partitions on it with Ray Data.

Notable choices:

- A worker on a CPU has one core and one thread, which wastes less than a network spread over threads. A worker on a GPU
  has the whole GPU.
- Only numbers of partitions and short reports go through Ray Data. A worker reads pictures and writes results itself,
  so nothing large is copied between processes, and memory does not grow with the collection.
- Ray restarts a worker that died, on another node if it must, and repeats its partitions, as often as it takes. A
  partition that kills every worker that begins it is a fatal error after a few attempts (`worker.Attempts`).
- A cluster that is started here has no dashboard and sends no usage statistics: the process for both is not started.
  (Ray starts it even if both are off, and it asks which cloud this is.) Connecting takes a token that only this process
  and its children have. The cluster is gone when the job ends.
- Ray prints a lot on stdout and stderr, even if all goes well. It does not reach the terminal; errors are raised.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fcos_cli.errors import FcosError, UsageError
from fcos_cli.hardware import allowed_cores
from fcos_cli.predict.cluster.model import ModelFiles
from fcos_cli.predict.cluster.worker import Attempts, Report, Task, Worker

STORE = 256 * 2**20
"""Bytes of the object store of a cluster that is started here. It holds the model and short reports."""
PATIENCE = 5.0
"""Seconds within which something must answer at the address of a cluster."""
MOST_CPUS = 8
"""Most cores of a worker that has a GPU; they open pictures for it."""
DEATHS = 3
"""Workers that may die one after another while they start."""
BLOCKS = 10_000
"""Partitions that Ray Data handles one by one; if there are more, several form a block."""
LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
"""Environment of a cluster that is started here: no statistics, and patience with a busy machine."""


class Pool(NamedTuple):
    """Workers of a job: how many, and what each has."""

    workers: int
    cpus: int
    gpus: int
    nodes: int


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or to one on this machine's cores that exists inside the block only.

    Raises UsageError if there is no cluster at the address, FcosError if none can be started.
    """
    variables = {} if address else {**LOCAL, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    with _environment(variables), _folder() as folder, _silence():
        import ray

        warnings.simplefilter("ignore")  # importing it adds filters in front
        handler = signal.getsignal(signal.SIGTERM)
        try:
            _join(address) if address else _start(folder)
            with suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, handler)  # Ray has its own, with another exit code
            yield
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    import ray

    where = f"--address {address}"
    if address.startswith("ray://"):
        what = "Ray Data does not work over Ray's client protocol"
        raise UsageError(what, where=where, remedy="run this on a machine of the cluster, with --address auto")
    if address != "auto":
        host, _, port = address.rpartition(":")
        remedy = "use HOST:PORT of its head node, as `ray start --head` prints it, or omit --address"
        if not host or not port.isdecimal() or int(port) > 65_535:
            raise UsageError("this is not the address of a cluster", where=where, remedy=remedy)
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        except OSError as error:
            raise UsageError(f"no cluster answers there ({error})", where=where, remedy=remedy) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError and others
        remedy = "run this on a machine of the cluster, with the same versions of Ray and Python, or omit --address"
        raise UsageError(f"the cluster cannot be joined ({_last_line(error)})", where=where, remedy=remedy) from error


def _start(folder: str, *, tries: int = 2) -> None:
    """Start a cluster. Ray gives up after half a minute, which a busy machine may need, so there is a second try."""
    import ray

    try:
        with _without_dashboard():
            ray.init(
                address="local",
                num_cpus=allowed_cores(),
                include_dashboard=False,
                object_store_memory=STORE,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                _temp_dir=folder,
            )
    except Exception as error:
        ray.shutdown()
        if tries > 1:
            _start(folder, tries=tries - 1)
            return
        remedy = "free memory and space in /dev/shm and the temporary folder, or use --address"
        raise FcosError(f"no local cluster of Ray could be started ({_last_line(error)})", remedy=remedy) from error


def run_partitions(numbers: Sequence[int], task: Task, model: ModelFiles, pool: Pool) -> Iterator[Report]:
    """Yield the report of each partition as it is finished, in any order. Raises FcosError if Ray gives up."""
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    _configure(ray.data.DataContext.get_current())
    here = ray.get_runtime_context().get_node_id()
    attempts = ray.remote(Attempts).options(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
    )
    given = {"task": task, "model": [ray.put(model)], "attempts": attempts.remote()}
    rows = ray.data.from_items([{"number": n} for n in numbers], override_num_blocks=min(len(numbers), BLOCKS))
    reports = rows.map_batches(
        Worker,
        fn_constructor_kwargs=given,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(pool.workers, len(numbers)), max_tasks_in_flight_per_actor=2),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
    )
    try:
        for row in reports.iter_rows():
            yield Report.from_json(row["report"])
    except ray.exceptions.RayError as error:
        cause: BaseException = error
        while deeper := cause.__cause__ or getattr(
            cause, "cause", None
        ):  # errors of a worker are wrapped several times
            cause = deeper
        raise FcosError(f"the cluster gave up ({type(cause).__name__}: {_last_line(cause)})") from error


def plan_pool(task: Task, model: ModelFiles) -> Pool:
    """How many workers the cluster has room for: one for each GPU if the model runs on them, else one for each core."""
    import ray

    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    nodes = sum(node["Alive"] for node in ray.nodes())
    if gpus and task.options.device != "cpu":
        probe = ray.remote(num_cpus=0, num_gpus=1)(_device_of)
        if not ray.get(probe.remote(task, model)).startswith("cpu"):
            return Pool(gpus, min(max(cpus // gpus, 1), MOST_CPUS), 1, nodes)
    return Pool(max(cpus, 1), 1, 0, nodes)


def _device_of(task: Task, model: ModelFiles) -> str:
    """Where the model runs: `cpu`, or the name of a GPU."""
    try:
        return str(model.open(task.options).device)
    except FcosError:
        return "cpu"  # the workers will say what is wrong


def _configure(context: Any) -> None:
    """Set what differs from Ray Data's defaults. Older versions do not have all of it."""
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "enable_auto_log_stats": False,
        "max_consecutive_actor_init_deaths": DEATHS,
        "execution_no_progress_timeout_s": -1,  # a partition may take a long time
    }
    for name, value in wanted.items():
        if hasattr(context, name):
            setattr(context, name, value)


@contextmanager
def _without_dashboard() -> Iterator[None]:
    from ray._private import services

    original = getattr(services, "start_api_server", None)
    if original is None:  # another version of Ray
        yield
        return
    services.start_api_server = lambda *_, **__: (None, None)
    try:
        yield
    finally:
        services.start_api_server = original


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what Ray prints off the terminal. Its core writes to file descriptor 2, which therefore leads nowhere inside
    the block; `sys.stderr` leads where it led before. We print nothing on stdout.
    """
    sys.stderr.flush()
    level, kept = logging.root.manager.disable, os.dup(2)
    stream = os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    with warnings.catch_warnings(), Path(os.devnull).open("w", encoding="utf-8") as nowhere, stream:
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        direct = redirect_stderr(stream) if _is_descriptor_2(sys.stderr) else nullcontext()
        os.dup2(nowhere.fileno(), 2)
        try:
            with direct, redirect_stdout(nowhere):
                yield
        finally:
            os.dup2(kept, 2)
            logging.disable(level)


def _is_descriptor_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):  # it only exists in memory
        return False


@cache
def _token() -> str:
    """The secret for connecting to a cluster that is started here. Ray reads it once per process."""
    return secrets.token_hex(32)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*variables, "RAY_AUTH_MODE")}  # Ray sets it too
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for what Ray writes. Socket paths may have at most 107 characters, so it is in /tmp if that exists."""
    place = "/tmp" if Path("/tmp").is_dir() else None
    return tempfile.TemporaryDirectory(prefix="fcos-ray-", dir=place, ignore_cleanup_errors=True)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
