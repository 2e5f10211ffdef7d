"""Starting and resuming runs: settings, data and errors."""

from pathlib import Path

import pytest

from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.errors import UsageError
from fcos_cli.train import start


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", train=2, val=1, size=32)


def plan(data: Path, **flags: object) -> start.Plan:
    return start.plan(data, file=None, assignments=[], flags=flags, base={})


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
