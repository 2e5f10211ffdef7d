"""Fixtures shared by the tests of the commands."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.config import Config, to_toml
from fcos_cli.model.classes import ClassTable
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.train.runs import SETTINGS


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings for a training that takes seconds."""
    path = tmp_path / "tiny.toml"
    config = Config.model_validate({**SETTINGS, "train": {**SETTINGS["train"], "batch": 6, "epochs": 1}})
    path.write_text(to_toml(config), encoding="utf-8")
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 30)), ("b.jpg", (64, 64))):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A small exported model with the classes of the generated dataset."""
    names = ClassTable(("circle", "square", "triangle"), (1, 2, 3))
    return write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, classes=names))
