"""What several tests share: a small drawn data set and the file of an untrained detector."""

import os
from pathlib import Path

import pytest

from tests.browser import browser, chromium  # noqa: F401 - fixtures

# threads that wait for work sleep: on a machine that is busy with something else, tiny networks are then not slowed
# down tenfold. Read when torch is first imported, which no test module has done yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn COCO data set: 12 pictures of 64 × 64 for training, 4 for validation. Not to be changed."""
    from fcos_cli.data.demo_shapes import write_shapes

    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=12, val=4, size=64)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose untrained network finds many things with scores near 0.07. Not to be changed."""
    from fcos_cli.model.artifact import save
    from tests.tiny import tiny_artifact

    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save(path, tiny_artifact())
    return path
