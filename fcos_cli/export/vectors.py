"""Test vectors for an exported file, with which `fcos verify` repeats the end-to-end comparison elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fcos_cli.console import say
from fcos_cli.export.formats import FORMATS
from fcos_cli.export.options import ExportOptions
from fcos_cli.export.tensorrt.profile import Profile
from fcos_cli.model.artifact import Artifact
from fcos_cli.parity.record import record_vectors
from fcos_cli.parity.vectors import Vector, write_vectors
from fcos_cli.parity.verify import verify
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.speed import typical_size


def with_vectors(artifact: Artifact, facts: Facts, path: Path, *, size: tuple[int, int] | None) -> Facts:
    """The facts of the file at `path` with test vectors. size: as in `record_vectors`.

    The file has to pass with them here. fp16 and int8 may miss their tolerance on three pictures although they pass on
    many; such a file gets none.
    """
    vectors = record_vectors(artifact, facts, size=size)
    if reason := _why_useless(vectors, path):
        say(f"the file has no test vectors for `fcos verify`: {reason}")
        return facts
    text = write_vectors(vectors)
    say(f"added test vectors for `fcos verify` ({len(vectors)} images, {len(text) / 1e3:.0f} kB)")
    return replace(facts, vectors=text)


def _why_useless(vectors: Sequence[Vector], path: Path) -> str | None:
    if not vectors:
        return "its input is too large"
    if not any(len(vector.expected.scores) for vector in vectors):
        return "PyTorch finds nothing in the bundled photos, so a runtime that finds nothing would pass"
    result = verify(open_detector(path), vectors)
    return None if result.passed else result.failures[0]


def vector_size(options: ExportOptions, facts: Facts, *, profile: Profile | None) -> tuple[int, int] | None:
    """(height, width) of the inputs of the test vectors; None if the file takes any. profile: of an engine."""
    if options.size is not None or not FORMATS[options.format].engine:
        return options.size
    # an engine takes sizes near those it is made for
    return typical_size(facts.resize) if profile is None else (profile.opt.height, profile.opt.width)
