"""Starting and resuming runs: settings, data and errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.errors import DataError, UsageError
from fcos_cli.train import start
from fcos_cli.train.checkpoint import Progress


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", train=2, val=1, size=32)


def plan(data: Path, **flags: object) -> start.Plan:
    return start.plan(data, file=None, assignments=[], flags={"train.batch": 2, **flags}, base={})


def test_data_path_is_stored_absolute(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes.parent)
    assert plan(Path("data")).config.data.path == str(shapes.resolve())


def test_folder_with_a_saved_run_is_refused(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(start, "train", lambda *_, **__: begun.append(True))
    (tmp_path / "config.toml").write_text("")  # killed before the first save
    start.start(plan(shapes), folder=tmp_path)
    assert begun
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="already in use"):
        start.start(plan(shapes), folder=tmp_path)


def test_another_backbone_sets_its_mean_and_std(shapes: Path) -> None:
    made = plan(shapes, **{"model.backbone": "resnet18"})
    assert made.config.model.mean == pytest.approx((123.675, 116.28, 103.53), abs=1e-2)
    assert made.config.model.backbone_norm_eps == 0
    assert made.origins["model.mean"] == "timm's resnet18"


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"train\.lr"):
        start.resume(tmp_path, flags={"train.lr": 0.1})


def test_run_uses_the_model_settings_of_its_initial_weights(shapes: Path, model_file: Path) -> None:
    made = plan(shapes, **{"train.init": str(model_file), "model.convs": 3})
    assert (made.config.model.backbone, made.config.model.channels, made.config.model.convs) == (
        "test_efficientnet",
        16,
        3,
    )
    assert (made.origins["model.channels"], made.origins["model.convs"]) == ("init", "flag")


def test_another_backbone_than_that_of_the_initial_weights_sets_its_mean(shapes: Path, model_file: Path) -> None:
    made = plan(shapes, **{"train.init": str(model_file), "model.backbone": "resnet18"})
    assert (made.config.model.backbone, made.config.model.channels) == ("resnet18", 16)
    assert made.config.model.mean == pytest.approx((123.675, 116.28, 103.53), abs=1e-2)
    assert made.origins["model.mean"] == "timm's resnet18"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800), (" 5M ", 300)]
)
def test_durations(text: str, seconds: float) -> None:
    assert start.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "30", "m", "-5m", "2d", "1m1h"])
def test_other_text_is_not_a_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        start.parse_duration(text)


def test_settings_that_do_not_fit_the_data_are_errors(shapes: Path) -> None:
    with pytest.raises(UsageError, match=r"batch of 3 is larger than the training data \(2 images\)"):
        start.check_settings(plan(shapes, **{"train.batch": 3}))
    with pytest.raises(UsageError, match="cannot be computed in 4 parts"):
        start.check_settings(plan(shapes, **{"train.accumulate": 4}))
    made = plan(shapes, **{"train.patience": 2})
    start.check_settings(made)
    blank = [replace(sample, ignore=np.ones(len(sample.boxes), np.bool_)) for sample in made.val.samples]
    with pytest.raises(DataError, match="patience needs a val split with boxes"):
        start.check_settings(replace(made, val=replace(made.val, samples=blank)))


@pytest.mark.parametrize(
    ("flags", "words"),
    [({"train.epochs": 4}, "already done 4 epochs"), ({"train.time": "90s"}, "already used 2 min")],
)
def test_a_run_cannot_be_made_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any], words: str
) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    monkeypatch.setattr(start, "read_progress", lambda _: Progress(epoch=4, seconds=100))
    with pytest.raises(UsageError, match=words):
        start.resume(tmp_path, flags=flags)


def test_tiles_are_cut_from_train_only(shapes: Path, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "large", train=4, val=2, size=128)
    whole, tiled = plan(data), plan(data, **{"data.tile": 64})
    assert (len(whole.train), len(whole.val), whole.val.samples[0].width) == (4, 2, 128)
    tiles = [sample for sample in tiled.train.samples if sample.part is not None]
    assert len(tiles) > 4
    assert {(tile.width, tile.height) for tile in tiles} == {(64, 64)}
    assert [sample.image for sample in tiled.val.samples] == [sample.image for sample in whole.val.samples]
    assert all(sample.part is None for sample in tiled.val.samples)
    assert "tiles of 64 px that overlap by 12.8 px" in tiled.train.origin
    with pytest.raises(UsageError, match="at least 32 pixels wide, not 31"):
        plan(shapes, **{"data.tile": 31})
    with pytest.raises(UsageError, match="greater than or equal to 0"):
        plan(shapes, **{"data.tile": -64})


def test_a_named_network_takes_only_the_other_settings_of_its_initial_weights(shapes: Path, model_file: Path) -> None:
    flags = {"train.batch": 2, "train.init": str(model_file), "data.size": (64, 64)}
    made = start.plan(shapes, file=None, assignments=[], flags=flags, base={}, network="nano")
    model = made.config.model
    assert (model.backbone, model.channels, model.tower) == ("efficientnet_lite0", 64, "separable")
    assert (model.candidates, made.origins["model.candidates"]) == (50, "init")
