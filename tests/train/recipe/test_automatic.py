"""Automatic settings: what the user sets wins, and everything else is chosen with a reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.config import AUTOMATIC, Config, Origins, resolve
from fcos_cli.train.recipe import automatic
from fcos_cli.train.recipe.automatic import with_automatic
from tests.train.recipe.made import dataset, sample

DATA = dataset([sample(1280, 960, sides=[60])] * 100)


def chosen(
    *, flags: Mapping[str, Any] | None = None, assignments: list[str] | None = None, network: str | None = None
) -> tuple[Config, Origins]:
    config, origins = resolve(flags=flags, assignments=assignments, network=network, environ={})
    return with_automatic(config, origins, DATA, DATA, network=network)


def test_every_automatic_setting_has_a_value_and_a_reason() -> None:
    config, origins = chosen()
    assert set(origins) == set(AUTOMATIC)
    assert all(reason.startswith("auto: ") for reason in origins.values())
    assert config.data.size == (384, 512)
    assert config.model.ranges == (32, 64, 128, 256)
    assert (config.train.epochs, config.train.val_every) == (125, 2)
    assert (config.train.repeat, config.model.backbone_norm) == (0, "trained")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.size", (64, 96)),
        ("model.ranges", (10.0, 20.0, 30.0, 40.0)),
        ("model.strides", (4, 8, 16, 32, 64)),
        ("train.lr", 0.1),
        ("train.backbone_lr", 0.7),
        ("train.freeze", 1),
        ("train.epochs", 3),
        ("train.val_every", 7),
        ("train.weight_decay", 0.3),
        ("train.repeat", 0.5),
        ("model.backbone_norm", "frozen"),
        ("augment.turn", 0.25),
        ("augment.mosaic", 0.25),
    ],
)
def test_a_value_that_is_set_wins(key: str, value: Any) -> None:
    config, origins = chosen(flags={key: value})
    section, name = key.split(".")
    assert getattr(getattr(config, section), name) == value
    assert origins[key] == "flag"


def test_auto_takes_a_value_back(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[data]\nsize = [64, 64]\n")
    config, origins = resolve(file=file, assignments=["data.size=auto"], environ={})
    config, origins = with_automatic(config, origins, DATA, DATA)
    assert config.data.size == (384, 512)
    assert origins["data.size"].startswith("auto")


def test_choices_build_on_the_settings_before_them() -> None:
    assert chosen(flags={"data.size": (640, 640)})[0].model.ranges == (64, 128, 256, 512)
    assert chosen(flags={"data.size": (64, 64)})[0].model.strides == (4, 8, 16, 32, 64)
    assert chosen(flags={"model.strides": [4, 8, 16, 32, 64]})[0].model.ranges == (16, 32, 64, 128)
    sgd = chosen(flags={"train.optimizer": "sgd"})[0].train
    assert (sgd.lr, sgd.weight_decay) == (0.01, 0.0001)
    assert chosen(flags={"train.epochs": 300})[0].train.val_every == 6
    assert chosen(flags={"train.batch": 2})[0].model.backbone_norm == "frozen"
    assert chosen(flags={"train.accumulate": 4})[0].model.backbone_norm == "frozen"


def test_the_objects_are_looked_at_once_for_all_that_depends_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(automatic, "upright_share", lambda *_: asked.append(1) or 0.88)
    train = chosen()[0].train
    assert (train.lr, train.backbone_lr, train.freeze) == (0.001, 0.5, 3)
    assert (chosen()[0].model.backbone_norm, len(asked)) == ("frozen", 2)
    assert chosen(flags={"train.time": 60.0})[0].train.lr == 0.002  # no time to look
    assert len(asked) == 2


@pytest.mark.parametrize(("network", "size"), [("nano", (256, 320)), ("small", (384, 512)), ("medium", (384, 512))])
def test_a_named_network_has_the_shape_of_the_images(network: str, size: tuple[int, int]) -> None:
    assert chosen(network=network)[0].data.size == size


def test_with_a_time_limit_the_machine_decides_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    pixels = 12_000 * 480 * 640
    monkeypatch.setattr(automatic, "_pixel_rate", lambda *_: pixels / 1000)
    config, origins = chosen(flags={"train.time": 1000 / automatic.USABLE})
    assert config.data.size == (480, 640)
    assert not {"train.epochs", "train.val_every"} & set(origins)  # a time limit spaces validations by itself
    assert chosen(flags={"train.time": 400.0})[0].data.size < (480, 640)
    monkeypatch.setattr(automatic, "_pixel_rate", None)  # not measured for a short run, nor by several processes
    assert chosen(flags={"train.time": 60.0})[0].data.size == (256, 320)
    for key, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    assert chosen(flags={"train.time": 1000.0})[0].data.size == (384, 512)


def test_processes_and_repeated_images_count_for_the_number_of_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    common, rare = sample(64, 64, sides=[30], classes=[0]), sample(64, 64, sides=[30], classes=[1])
    rows = [common] * 285 + [rare] * 15  # of 5 %: they come √2 times as often, 306 images per epoch
    made = dataset(rows, classes=2)

    def epochs(**changes: object) -> int:
        config, origins = resolve(file=None, flags=changes, environ={})
        return with_automatic(config, origins, made, made)[0].train.epochs

    assert epochs() == 40  # 1500 / 38 steps
    assert epochs(**{"train.repeat": 0.0}) == 41  # 1500 / 37
    for key, value in {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    assert epochs() == 167  # 1500 / 9


def test_the_cost_of_a_finer_level_counts_only_if_it_is_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "_pixel_rate", lambda *_: 12_000 * 320 * 448 / 1000)
    small = dataset([sample(1280, 960, sides=[20])] * 100)  # 7 px at 448 px

    def size(**changes: object) -> tuple[int, int]:
        flags = {"train.time": 1000 / automatic.USABLE, **changes}
        config, origins = resolve(file=None, flags=flags, environ={})
        return with_automatic(config, origins, small, small)[0].data.size

    assert size(**{"model.strides": [4, 8, 16, 32, 64]}) == (320, 448)
    assert size() == (256, 320)


def test_the_rate_of_this_machine_is_measured(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.train.runs import config_of, splits

    train_set, val_set = splits(shapes)
    assert automatic._pixel_rate(config_of(), train_set, val_set) > 1000
