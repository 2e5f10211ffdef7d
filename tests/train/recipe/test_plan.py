"""The plan of a run: settings from every layer, and settings and data that do not fit."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.artifact import save
from fcos_cli.train.recipe.plan import Plan, check_settings, make_plan, with_chosen_batch
from tests.tiny import tiny_artifact, tiny_model


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", train=2, val=1, size=32)


def plan(data: Path, **flags: object) -> Plan:
    return make_plan(data, file=None, assignments=[], flags={"train.batch": 2, **flags}, base={})


def test_data_path_is_stored_absolute(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes.parent)
    assert plan(Path("data")).config.data.path == str(shapes.resolve())


def test_another_backbone_sets_its_mean_and_std(shapes: Path) -> None:
    made = plan(shapes, **{"model.backbone": "resnet18"})
    assert made.config.model.mean == pytest.approx((123.675, 116.28, 103.53), abs=1e-2)
    assert made.config.model.backbone_norm_eps == 0
    assert made.origins["model.mean"] == "timm's resnet18"


def test_run_uses_the_model_settings_of_its_initial_weights(shapes: Path, model_file: Path) -> None:
    made = plan(shapes, **{"train.init": str(model_file), "model.convs": 3})
    assert (made.config.model.backbone, made.config.model.channels, made.config.model.convs) == (
        "test_efficientnet",
        16,
        3,
    )
    assert (made.origins["model.channels"], made.origins["model.convs"]) == ("init", "flag")


@pytest.mark.parametrize("key", ["model.strides", "model.ranges", "model.backbone_norm"])
def test_auto_chooses_again_what_the_initial_weights_would_set(tmp_path: Path, shapes: Path, key: str) -> None:
    file = tmp_path / "init.safetensors"
    source = tiny_model(strides=(8, 16, 32), ranges=(20.0, 40.0))
    save(file, tiny_artifact(weights=source.state_dict(), config=source.config))
    flags = {"train.batch": 2, "train.init": str(file), "data.size": (64, 64)}
    kept = make_plan(shapes, file=None, assignments=[], flags=flags, base={})
    assert (kept.config.model.strides, kept.config.model.ranges) == ((8, 16, 32), (20.0, 40.0))
    assert kept.origins[key] == "init"
    again = make_plan(shapes, file=None, assignments=[f"{key}=auto"], flags=flags, base={})
    assert again.origins[key].startswith("auto: ")
    model = again.config.model
    assert len(model.ranges) == len(model.strides) - 1
    assert len(model.strides) == (5 if key == "model.strides" else 3)
    assert model.ranges[:2] == ((20.0, 40.0) if key == "model.backbone_norm" else (32.0, 64.0))


def test_another_backbone_than_that_of_the_initial_weights_sets_its_mean(shapes: Path, model_file: Path) -> None:
    made = plan(shapes, **{"train.init": str(model_file), "model.backbone": "resnet18"})
    assert (made.config.model.backbone, made.config.model.channels) == ("resnet18", 16)
    assert made.config.model.mean == pytest.approx((123.675, 116.28, 103.53), abs=1e-2)
    assert made.origins["model.mean"] == "timm's resnet18"


def test_settings_that_do_not_fit_the_data_are_errors(shapes: Path) -> None:
    with pytest.raises(UsageError, match=r"batch of 3 is larger than the training data \(2 images\)"):
        check_settings(plan(shapes, **{"train.batch": 3}))
    with pytest.raises(UsageError, match="cannot be computed in 4 parts"):
        check_settings(plan(shapes, **{"train.accumulate": 4}))
    made = plan(shapes, **{"train.patience": 2})
    check_settings(made)
    blank = [replace(sample, ignore=np.ones(len(sample.boxes), np.bool_)) for sample in made.val.samples]
    with pytest.raises(DataError, match="patience needs a val split with boxes"):
        check_settings(replace(made, val=replace(made.val, samples=blank)))


def test_boxes_that_are_nearly_all_smaller_than_a_pixel_are_refused(shapes: Path) -> None:
    made = plan(shapes, **{"data.size": (320, 320)})
    small = [
        replace(sample, width=8000, height=8000, boxes=np.array([[0, 0, 16, 16]] * len(sample.boxes), np.float32))
        for sample in made.train.samples
    ]
    with pytest.raises(UsageError, match=r"100% of .* boxes are smaller than a pixel at input size 320 x 320") as error:
        check_settings(replace(made, train=replace(made.train, samples=small)))
    assert error.value.remedy == "use --tile 640"


ONE_CELL = {"data.size": (64, 64), "model.channels": 32}


FINE = [4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, True),
        ({"data.size": (128, 96)}, True),
        ({"data.size": (160, 96)}, False),
        ({"model.groups": 16}, False),
        ({"model.strides": FINE}, True),
        ({"model.strides": FINE, "data.size": (96, 96)}, False),
    ],
    ids=str,
)
def test_a_group_norm_of_single_values_is_told(
    shapes: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], told: bool
) -> None:
    check_settings(plan(shapes, **{**ONE_CELL, **changes}))
    assert ("GroupNorm leaves nothing of it: use --set model.groups=16" in capsys.readouterr().err) == told


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({**ONE_CELL, "model.norm": "batch", "train.batch": 1}, "model.norm"),
        ({**ONE_CELL, "model.norm": "batch", "train.accumulate": 2}, "model.norm"),
        ({**ONE_CELL, "model.norm": "batch"}, None),
        ({"data.size": (32, 32), "train.batch": 1, "model.backbone_norm": "trained"}, "model.backbone_norm"),
        ({"data.size": (32, 32), "train.batch": 1, "model.backbone_norm": "frozen"}, None),
        ({"data.size": (32, 32), "train.batch": 2, "model.backbone_norm": "trained"}, None),
    ],
    ids=str,
)
def test_a_batch_norm_of_single_values_is_refused(shapes: Path, changes: dict[str, object], where: str | None) -> None:
    made = plan(shapes, **changes)
    with nullcontext() if where is None else pytest.raises(UsageError, match="one value per channel") as caught:
        check_settings(made)
    assert where is None or caught.value.where == where


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


@pytest.mark.parametrize(("batch", "epochs", "norm"), [(2, 1500, "frozen"), (16, 1500, "trained"), (1, 750, "frozen")])
def test_what_the_batch_decides_is_chosen_for_the_chosen_batch(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, batch: int, epochs: int, norm: str
) -> None:
    monkeypatch.setattr("fcos_cli.train.recipe.plan.choose_batch", lambda *_: batch)
    made = make_plan(shapes, file=None, assignments=[], flags={}, base={})
    chosen = with_chosen_batch(made)
    assert (chosen.config.train.batch, chosen.config.train.epochs) == (batch, epochs)
    assert chosen.config.model.backbone_norm == norm
    assert f"steps of {batch} images" in chosen.origins["train.epochs"]
    assert chosen.config.data == made.config.data
    own = with_chosen_batch(plan(shapes, **{"train.epochs": 7, "model.backbone_norm": "trained"}))
    assert (own.config.train.epochs, own.config.model.backbone_norm) == (7, "trained")
    assert own.origins["train.epochs"] == "flag"


def empty(data: Path, *images: int) -> None:
    """Remove the boxes of these training images."""
    file = data / "train.json"
    content = json.loads(file.read_text())
    gone = {content["images"][index]["id"] for index in images}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] not in gone]
    file.write_text(json.dumps(content))


def test_images_without_objects_are_left_out_before_anything_is_chosen(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", train=6, val=2, size=128)
    empty(data, 1, 2, 3)
    whole, kept = plan(data), plan(data, **{"data.drop_empty": True})
    images = [sample.image for sample in whole.train.samples if len(sample.boxes)]
    assert (len(whole.train), len(kept.val), whole.config.train.epochs) == (6, 2, 500)
    assert [sample.image for sample in kept.train.samples] == images
    assert kept.config.train.epochs == 1500  # of one step each
    assert kept.train.origin.endswith(f"; {6 - len(images)} without objects left out")
    tiled = plan(data, **{"data.drop_empty": True, "data.tile": 64})
    assert len(tiled.train) > len(images)
    assert all(len(sample.boxes) for sample in tiled.train.samples)
    empty(data, *range(6))
    with pytest.raises(DataError, match="the train split has no boxes"):
        check_settings(plan(data, **{"data.drop_empty": True}))


def test_a_named_network_takes_only_the_other_settings_of_its_initial_weights(shapes: Path, model_file: Path) -> None:
    flags = {"train.batch": 2, "train.init": str(model_file), "data.size": (64, 64)}
    made = make_plan(shapes, file=None, assignments=[], flags=flags, base={}, network="nano")
    model = made.config.model
    assert (model.backbone, model.channels, model.tower) == ("efficientnet_lite0", 64, "separable")
    assert (model.candidates, made.origins["model.candidates"]) == (50, "init")
