"""What a benchmark is to measure, and the check that it can begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

from fcos_cli.bench.messages import Job
from fcos_cli.bench.precision import precisions_to_try
from fcos_cli.console import say
from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.sources import open_sources
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.open import BACKENDS

MOST_PICTURES = 16
"""Every turn takes all pictures once: more of them would make rounds long, and drift tell."""


@dataclass(frozen=True)
class Settings:
    """What is measured: every model by every backend (None: its usual one), precision (None: its own), batch size.

    pictures: paths. rounds: turns of each row, at least. device, threads, size: as in `Job`.
    """

    models: tuple[str, ...]
    pictures: tuple[str, ...]
    backends: tuple[str | None, ...] = (None,)
    precisions: tuple[str | None, ...] = (None,)
    batches: tuple[int, ...] = (1,)
    rounds: int = 20
    device: str = "auto"
    threads: int | None = None
    size: tuple[int, int] | None = None

    def jobs(self) -> list[Job]:
        return [
            Job(
                model,
                self.pictures,
                batch=batch,
                asked=asked,
                attempts=precisions_to_try(asked),
                backend=backend,
                device=self.device,
                threads=self.threads,
                size=self.size,
            )
            for model, backend, asked, batch in product(self.models, self.backends, self.precisions, self.batches)
        ]


def choose_pictures(sources: Sequence[str]) -> tuple[str, ...]:
    """The pictures behind what a user names, at most MOST_PICTURES; of nothing the photos that ship in the package."""
    if not sources:
        return tuple(str(path) for path in demo_photos())
    found = [str(path) for path in islice(open_sources(sources), MOST_PICTURES + 1)]
    if len(found) > MOST_PICTURES:
        say(f"measuring with the first {MOST_PICTURES} pictures")
    return tuple(found[:MOST_PICTURES])


def parse_batches(text: str) -> tuple[int, ...]:
    """`1,4` → (1, 4). Raises UsageError."""
    parts = text.split(",")
    if all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        return tuple(dict.fromkeys(int(part) for part in parts))
    raise UsageError(f"--batch {text!r} is no list of batch sizes", remedy="--batch 1,4")


def check_settings(settings: Settings) -> None:
    """Before anything is started: UsageError for what can never work, DataError for a picture that cannot be read."""
    known = {backend for backends in BACKENDS.values() for backend in backends}
    for backend in settings.backends:
        if backend is not None and backend not in known:
            remedy = f"use one of {', '.join(sorted(known))}"
            raise UsageError(f"unknown backend {backend!r}", where="--backend", remedy=remedy)
    if settings.threads is not None and settings.threads < 1:
        raise UsageError(f"there is no work for {settings.threads} threads", where="--threads")
    if settings.rounds < 1 or min(settings.batches) < 1:
        raise UsageError("rounds and batches are numbers of at least 1")
    if not settings.pictures:
        raise DataError("there is no picture to measure with", remedy="--images PATH")
    for picture in settings.pictures:
        open_image(Path(picture))
