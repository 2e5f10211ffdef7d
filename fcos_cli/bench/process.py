"""The benchmark's side of a process in which one model is measured: start it, ask it, end it."""

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
from fcos_cli.bench.messages import Job, JobSkipped, Ready, Refusal, unwrap
from fcos_cli.data.geometry import Pixels
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections

ROOT = Path(fcos_cli.__file__).resolve().parent.parent
CODE = "import sys; sys.path.append({root!r}); from fcos_cli.bench.worker import main; main({descriptor})"


class Worker:
    """A process with one open model. `start` it; `close` it, whatever happens: nothing in it is worth keeping.

    ready: what it said of the model. start_ms: from the start of the process to its first answer, imports, loading
    and one batch of pictures included.
    """

    def __init__(self, process: subprocess.Popen[bytes], connection: Any, noise: IO[bytes]) -> None:
        self._process, self._connection, self._noise = process, connection, noise
        self.ready: Ready
        self.start_ms = 0.0

    @classmethod
    def start(cls, job: Job) -> Worker:
        """Raises Skipped where the model cannot be opened or run."""
        ours, theirs = Pipe()
        code = CODE.format(root=str(ROOT), descriptor=theirs.fileno())
        noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        begun = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=noise,
            stderr=noise,
            pass_fds=(theirs.fileno(),),
            process_group=0,  # Ctrl-C is for the benchmark, which ends its workers itself
        )
        theirs.close()  # so that the worker's end is heard
        worker = cls(process, ours, noise)
        try:
            worker.ready = worker._exchange(job)
            worker.start_ms = 1e3 * (perf_counter() - begun)
        except BaseException:
            worker.close()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer to a request of `worker.main`. Raises Skipped where there is none."""
        return self._exchange((name, *arguments))

    def close(self) -> None:
        """End the process, at once."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._noise.close()

    def _exchange(self, message: Any) -> Any:
        try:
            self._connection.send(message)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise JobSkipped(Refusal(self._last_words())) from error
        return unwrap(answer)

    def _last_words(self) -> str:
        """Why the process is gone: how it ended, and the last line of what it wrote."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "its process hung up"
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = " (9: often for want of memory)" if code == -9 else ""
        self._noise.seek(0)
        lines = self._noise.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process {how}{hint}" + (f": {lines[-1].strip()[:300]}" if lines else "")


class RemoteDetector:
    """A worker as a `Detector`: what it answers is computed by the very model that was timed, in its own process."""

    def __init__(self, worker: Worker, *, name: str) -> None:
        self._worker, self.name = worker, name
        ready = worker.ready
        self.facts: Facts = ready.facts
        self.backend, self.precision, self.device = ready.backend, ready.precision, ready.device

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections:
        found: RawDetections = self._worker.ask("detect", images, sizes)
        return found
