"""What an earlier run wrote is not a source, unless the user names it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.predict.draw import save_image
from fcos_cli.predict.outputs import source_test
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.sources.output_folder import OutputFolder

DRAWN = ("out/a.jpg", "out/crops/cat/a-000-cat-0.87.jpg")
MINE = ("a.jpg", "out/mine.jpg")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures that an earlier run drew, and two others, one of them among the outputs."""
    monkeypatch.chdir(tmp_path)
    for name in DRAWN:
        save_image(Path(name), np.zeros((4, 4, 3), np.uint8))
    for name in MINE:
        Path(name).write_bytes(b"mine")
    Path("list.txt").write_text("\n".join(DRAWN))


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize(
    ("source", "reading", "writing"),
    [
        (".", MINE, MINE[:1]),
        ("**/*.jpg", MINE, MINE[:1]),
        ("out", MINE[1:], MINE[1:]),
        ("out/**/*.jpg", MINE[1:], MINE[1:]),
        ("-", MINE, MINE),
        ("out/crops", DRAWN[1:], DRAWN[1:]),  # the user wants what is there
        ("out/crops/*/*.jpg", DRAWN[1:], DRAWN[1:]),
        ("out/a.jpg", DRAWN[:1], DRAWN[:1]),
        ("list.txt", DRAWN, DRAWN),
    ],
)
def test_sources(
    monkeypatch: pytest.MonkeyPatch, *, source: str, reading: tuple[str, ...], writing: tuple[str, ...], writes: bool
) -> None:
    outputs, everything = OutputFolder(Path("out"), writes=writes), "\n".join((*DRAWN, *MINE))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(everything.encode()))))
    found = {Path(str(item)).as_posix() for item in open_sources([source], leave_out=outputs)}
    assert found == set(writing if writes else reading)
    is_source = source_test([source], leave_out=outputs)
    assert {name for name in DRAWN if is_source(Path(name).resolve())} == found & set(DRAWN)


def test_what_is_left_out_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    list(open_sources(["."], leave_out=OutputFolder(Path("out"), writes=False)))
    line = ".: 2 earlier outputs were left out (such as out/a.jpg): name the file itself to use it as a source\n"
    assert capfd.readouterr().err == line
    list(open_sources(["."], leave_out=OutputFolder(Path("out"), writes=True)))
    assert capfd.readouterr().err == ""
