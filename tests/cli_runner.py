"""The `fcos` fixture: run the command line in this process."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from fcos_cli.cli import main


class CliResult(NamedTuple):
    """Exit code, stdout and stderr of one command line."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        content: dict[str, Any] = json.loads(self.out)
        return content


class Fcos(Protocol):
    def __call__(self, *arguments: object) -> CliResult: ...


@pytest.fixture
def fcos(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Fcos:
    """Run `fcos ARGUMENTS` in an empty folder."""
    for name in [name for name in os.environ if name.startswith("FCOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("fcos_cli.allocator.keep_freed_memory", lambda: False)
    monkeypatch.setattr("fcos_cli.train.tracking.trackers.find_spec", lambda _: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> CliResult:
        monkeypatch.setattr(sys, "argv", ["fcos", *map(str, arguments)])
        capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return CliResult(code, *capfd.readouterr())

    return run


def created_files() -> list[Path]:
    """Everything below the working directory."""
    return sorted(Path.cwd().rglob("*"))
