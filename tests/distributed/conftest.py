"""The process from which the tests of this folder start others."""

from collections.abc import Iterator

import pytest

from tests.distributed.launch import Launcher


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()
