"""Benchmark settings and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

from fcos_cli.bench.precision import precisions_to_try
from fcos_cli.bench.protocol import Job
from fcos_cli.console import say
from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.address import Address, is_address
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.sources.video import is_camera
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.open import BACKENDS

MAX_PICTURES = 16
"""Every turn runs all images once; with more of them, rounds would be long and drift would affect the results."""

MAX_BATCH = 65_536
"""As for `fcos predict`."""


@dataclass(frozen=True)
class Settings:
    """What to measure: every combination of model, backend, precision and batch size.

    A backend of None is the model's default, a precision of None its own. pictures: image paths. rounds: number of
    rounds, with one turn per row. device, threads, size: as in `Job`.
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
                asked=precision,
                attempts=precisions_to_try(precision),
                backend=backend,
                device=self.device,
                threads=self.threads,
                size=self.size,
            )
            for model, backend, precision, batch in product(self.models, self.backends, self.precisions, self.batches)
        ]


def choose_pictures(sources: Sequence[str]) -> tuple[str, ...]:
    """Return at most MAX_PICTURES image paths from the given sources; by default the bundled demo photos.

    Raises UsageError for a video, a camera, an address or an image on stdin, DataError for a missing source.
    """
    if not sources:
        return tuple(str(path) for path in demo_photos())
    live = [source for source in sources if is_camera(source)]
    live += [str(Address(source)) for source in sources if is_address(source)]
    items = [] if live else list(islice(open_sources(sources, frames=1), MAX_PICTURES + 1))
    paths = [str(item) for item in items if isinstance(item, Path)]
    usable = f"leave it out; others can be used: {', '.join(paths)}" if paths else "name image files or folders"
    failed = next((item for item in items if isinstance(item, Failure)), None)
    moving = live or [str(item.source) for item in items if isinstance(item, Frame)]
    if moving:
        raise UsageError("fcos bench measures on image files only", where=f"--images {moving[0]}", remedy=usable)
    if failed is not None:
        raise DataError(failed.error.what, where=failed.error.where, remedy=usable)
    if len(paths) > MAX_PICTURES:
        say(f"using the first {MAX_PICTURES} images only")
    return tuple(paths[:MAX_PICTURES])


def parse_batches(text: str) -> tuple[int, ...]:
    """Parse `1,4` to (1, 4). Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() and len(part) < 10 and 0 < int(part) <= MAX_BATCH for part in parts):
        return tuple(dict.fromkeys(int(part) for part in parts))
    remedy = f"use e.g. --batch 1,4, from 1 to {MAX_BATCH}"
    raise UsageError(f"--batch {text[:40]!r} is not a list of batch sizes", remedy=remedy)


def parse_backends(text: str | None) -> tuple[str | None, ...]:
    """Parse `onnxruntime, openvino` to its names; (None,), the default of each model, without any."""
    return tuple(name.strip() for name in text.split(",")) if text else (None,)


def check_settings(settings: Settings) -> None:
    """Check settings before any process starts: UsageError if invalid, DataError for an unreadable image."""
    known = {backend for backends in BACKENDS.values() for backend in backends}
    for backend in settings.backends:
        if backend is not None and backend not in known:
            remedy = f"use one of {', '.join(sorted(known))}"
            raise UsageError(f"unknown backend {backend!r}", where="--backend", remedy=remedy)
    if settings.threads is not None and settings.threads < 1:
        raise UsageError(f"the number of threads must be at least 1, not {settings.threads}", where="--threads")
    if settings.rounds < 1 or min(settings.batches) < 1:
        raise UsageError("rounds and batch sizes must be at least 1")
    if not settings.pictures:
        raise DataError("no images found", remedy="give images with --images PATH")
    for picture in settings.pictures:
        open_image(Path(picture))
