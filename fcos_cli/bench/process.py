"""The benchmark's side of a worker process: start it, send requests, end it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from multiprocessing import Pipe
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import fcos_cli
from fcos_cli.bench.protocol import Job, JobSkipped, Ready, Refusal, unwrap
from fcos_cli.data.geometry import Pixels
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections

ROOT = Path(fcos_cli.__file__).resolve().parent.parent
CODE = "import sys; sys.path.append({root!r}); from fcos_cli.bench.worker import main; main({descriptor})"


class Worker:
    """A process with one open model. Start it with `start` and always `close` it; it holds no state worth keeping.

    ready: the model's description. start_ms: from the start of the process to its first result, including imports,
    loading and one batch of images.
    """

    def __init__(self, process: subprocess.Popen[bytes], connection: Any, output: IO[bytes]) -> None:
        self._process, self._connection, self._output = process, connection, output
        self.ready: Ready
        self.start_ms = 0.0

    @classmethod
    def start(cls, job: Job) -> Worker:
        """Start a worker. Raises JobSkipped if the model cannot be opened or run."""
        parent_end, child_end = Pipe()
        code = CODE.format(root=str(ROOT), descriptor=child_end.fileno())
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        start = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(child_end.fileno(),),
            process_group=0,  # Ctrl-C goes only to the benchmark, which ends its workers itself
        )
        child_end.close()  # so that the benchmark notices if the worker dies
        worker = cls(process, parent_end, output)
        try:
            worker.ready = worker._exchange(job)
            worker.start_ms = 1e3 * (perf_counter() - start)
        except BaseException:
            worker.close()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(self, name: str, *arguments: Any) -> Any:
        """Send a request as listed in `worker.main` and return the result. Raises JobSkipped if it fails."""
        return self._exchange((name, *arguments))

    def close(self) -> None:
        """Kill the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._output.close()

    def _exchange(self, message: Any) -> Any:
        try:
            self._connection.send(message)
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise JobSkipped(Refusal(self._exit_reason())) from error
        return unwrap(reply)

    def _exit_reason(self) -> str:
        """Describe how the process ended, with the last line of its output."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the worker process closed the connection"
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        hint = " (often out of memory)" if code == -9 else ""
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return f"the worker process {how}{hint}" + (f": {lines[-1].strip()[:300]}" if lines else "")


class RemoteDetector:
    """A worker as a `Detector`, so that accuracy is computed with the same model and process that was timed."""

    def __init__(self, worker: Worker, *, name: str) -> None:
        self._worker, self.name = worker, name
        ready = worker.ready
        self.facts: Facts = ready.facts
        self.backend, self.precision, self.device = ready.backend, ready.precision, ready.device

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        detections: RawDetections = self._worker.request("detect", images, sizes)
        return detections
