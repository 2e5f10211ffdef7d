"""Whether the objects of synthetic data sets can be told from the same upside down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from fcos_cli.config import Config
from fcos_cli.data.samples import Dataset
from fcos_cli.model.artifact import save
from fcos_cli.train.recipe import orientation
from fcos_cli.train.recipe.orientation import BATCH, FEWEST, told_apart, upright_share
from tests.tiny import tiny_artifact
from tests.train.recipe.made import dataset, sample
from tests.train.runs import config_of

SIZE = 32


def test_views_that_differ_are_told_apart() -> None:
    objects = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert told_apart(objects + torch.eye(8)[0] * 5, objects) == 1
    assert told_apart(objects, objects + torch.eye(8)[0] * 5) == 1


def test_views_that_do_not_differ_are_not() -> None:
    views = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0))
    assert told_apart(views[0], views[1]) == pytest.approx(0.5, abs=0.1)


def images(folder: Path, shade: npt.NDArray[Any], *, count: int = FEWEST) -> Dataset:
    """Images of noise with an object in the middle, of which `shade` [SIZE, SIZE] is the brightness without noise."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(count):
        image = random.normal(128, 40, (2 * SIZE, 2 * SIZE))
        image[SIZE // 2 : -SIZE // 2, SIZE // 2 : -SIZE // 2] += shade
        file = folder / f"{number}.png"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)
        made = sample(2 * SIZE, 2 * SIZE, sides=[SIZE])
        made.boxes[:] += SIZE / 2
        samples.append(replace(made, image=file))
    return dataset(samples)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save(tmp_path / "tiny.safetensors", tiny_artifact())
    return str(tmp_path / "tiny.safetensors")


def test_objects_that_are_bright_above_have_an_upright_orientation(tmp_path: Path, weights: str) -> None:
    shade = np.repeat(np.linspace(120, -120, SIZE)[:, None], SIZE, axis=1)
    assert upright_share(config_of(init=weights), images(tmp_path, shade)) == pytest.approx(1, abs=0.1)


def test_discs_have_none(tmp_path: Path, weights: str) -> None:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    share = upright_share(config_of(init=weights), images(tmp_path, 100.0 * (np.hypot(x, y) < SIZE / 3)))
    assert share == pytest.approx(0.5, abs=0.2)


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path, weights: str) -> None:
    data = images(tmp_path, np.zeros((SIZE, SIZE)), count=FEWEST + BATCH)
    for number in range(BATCH):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    assert upright_share(config_of(init=weights), data) is not None
    (tmp_path / f"{BATCH}.png").write_bytes(b"broken")
    assert upright_share(config_of(init=weights), data) is None


def test_crops_of_a_file_of_another_size_than_annotated_show_the_object(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40), np.uint8)
    pixels[20:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    made = replace(sample(80, 80, sides=[20]), image=tmp_path / "half.png")
    made.boxes[:] += 50
    crop = orientation._crop(made, random=np.random.default_rng(0))
    assert crop is not None
    assert crop.min() == 255


def test_few_images_or_a_backbone_without_training_say_nothing(tmp_path: Path, weights: str) -> None:
    few = images(tmp_path, np.zeros((SIZE, SIZE)), count=FEWEST - 1)
    assert upright_share(config_of(init=weights), few) is None
    assert upright_share(config_of(init="random"), dataset(few.samples * 2)) is None


def test_a_backbone_that_does_not_take_the_crops_says_nothing(tmp_path: Path) -> None:
    model = {"backbone": "swin_tiny_patch4_window7_224"}  # takes 224 pixels only
    config = Config.model_validate({"model": model, "train": {"init": "pretrained"}})
    assert upright_share(config, images(tmp_path, np.zeros((SIZE, SIZE)))) is None


def test_of_large_photos_fewer_are_decoded(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    original = orientation.open_sample
    monkeypatch.setattr(orientation, "open_sample", lambda made: opened.append(made.image) or original(made))
    made = images(tmp_path, np.zeros((SIZE, SIZE)), count=2 * FEWEST)
    upright_share(config_of(init=weights), made)
    assert len(opened) == 2 * FEWEST
    opened.clear()
    monkeypatch.setattr(orientation, "PIXELS", 1.0)
    assert upright_share(config_of(init=weights), made) is not None
    assert len(opened) == 1.5 * FEWEST
