"""The process in which one model is measured. It serves requests until the benchmark closes the connection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from fcos_cli.allocator import keep_freed_memory
from fcos_cli.bench.protocol import Job, Ready, Refusal
from fcos_cli.hardware import peak_memory


def main(descriptor: int) -> None:
    """Serve the connection on file descriptor `descriptor`: first a Job, answered by Ready, then requests by name.

    `turn` → list[Sample]; `warm_up` → None; `peak_memory`, `model_bytes` → int; `("detect", images, sizes)` →
    RawDetections. A failed request is answered by a Refusal.
    """
    keep_freed_memory()
    connection = Connection(descriptor)
    try:
        _serve(connection)
    except (EOFError, OSError):  # the benchmark has ended
        sys.exit(0)


def _serve(connection: Any) -> None:
    try:
        ready, handlers = _open(connection.recv())
    except EOFError:
        raise
    except Exception as error:
        connection.send(Refusal.of(error))
        return
    connection.send(ready)
    while True:
        name, *arguments = connection.recv()
        try:
            reply = handlers[name](*arguments)
        except Exception as error:
            reply = Refusal.of(error)
        connection.send(reply)


def _open(job: Job) -> tuple[Ready, dict[str, Callable[..., Any]]]:
    """Open the model and run one batch; return its description and the request handlers."""
    from fcos_cli.bench.precision import open_in_precision
    from fcos_cli.bench.stages import Pipeline, batches_of, measure_turn, warm_up

    opened = open_in_precision(job)
    detector = opened.detector
    facts = detector.facts
    if job.size is not None:
        facts = replace(facts, resize=replace(facts.resize, mode="letterbox", size=job.size))
    pipeline, batches = Pipeline(detector, facts.resize), batches_of(job.pictures, job.batch)
    pipeline(batches[0])
    ready = Ready(
        backend=detector.backend,
        device=str(detector.device),
        precision=opened.precision,
        attempt=opened.attempt,
        facts=facts,
        threads=_threads(detector),
        note="; ".join(filter(None, (opened.note, _batch_note(detector, job.batch), _memory_note(detector)))) or None,
    )
    return ready, {
        "turn": lambda: measure_turn(pipeline, batches),
        "warm_up": lambda: warm_up(pipeline, batches),
        "peak_memory": peak_memory,
        "model_bytes": lambda: _model_bytes(job, detector),
        "detect": detector,
    }


def _model_bytes(job: Job, detector: Any) -> int:
    """Total size of the model's files."""
    from fcos_cli.runtime.headers import read_header
    from fcos_cli.runtime.open import find_artifact

    return read_header(find_artifact(job.model, backend=detector.backend, device=job.device)).bytes


def _threads(detector: Any) -> int | None:
    if detector.backend != "pytorch":
        return None
    import torch

    return torch.get_num_threads()


def _memory_note(detector: Any) -> str | None:
    """Note for GPUs with memory of their own, which no system call measures for all runtimes."""
    on_gpu = str(detector.device).startswith(("cuda", "tensorrt"))
    return "peak memory is host memory, without GPU memory" if on_gpu else None


def _batch_note(detector: Any, batch: int) -> str | None:
    """Note for files with a fixed or limited batch size, which are filled up or called several times."""
    limits = getattr(detector, "limits", None)
    if limits is None or (limits.min_batch <= batch and (limits.max_batch is None or batch <= limits.max_batch)):
        return None
    if batch < limits.min_batch:
        return f"the file has a minimum batch size of {limits.min_batch}: batches are padded"
    return f"the file has a maximum batch size of {limits.max_batch}: {-(-batch // limits.max_batch)} calls per batch"
