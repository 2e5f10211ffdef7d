"""Shared fixtures: a small synthetic data set and the file of an untrained detector."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser, chromium  # noqa: F401 - fixtures
from tests.cli_runner import fcos  # noqa: F401 - fixture

# Waiting threads sleep instead of spinning, which would slow tiny networks tenfold on a busy machine. The variable is
# read when torch is first imported, which no test module has done yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which this process may do nothing; root may, so the system's calls are replaced."""
    folder = tmp_path / "theirs"
    folder.mkdir()

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(path, int) and folder in Path(os.fsdecode(path)).parents:
                raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
            return call(path, *args, **options)

        return checked

    access = os.access
    monkeypatch.setattr(os, "stat", refusing(os.stat))
    monkeypatch.setattr(os, "lstat", refusing(os.lstat))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic COCO data set: 12 training and 4 validation images of 64 × 64. Tests must not modify it."""
    from fcos_cli.data.demo_shapes import write_shapes

    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=12, val=4, size=64)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of an untrained network with many detections of scores near 0.07. Tests must not modify it."""
    from fcos_cli.model.artifact import save
    from tests.tiny import tiny_artifact

    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save(path, tiny_artifact())
    return path
