"""Config: precedence of defaults, file, environment and flags, and errors of invalid settings."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos_cli.config import (
    AugmentConfig,
    Config,
    DataConfig,
    TrainConfig,
    flatten,
    parse_value,
    resolve,
    to_toml,
)
from fcos_cli.errors import UsageError
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.conventions import Conventions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text("[train]\nlr = 0.01\nepochs = 2\nbatch = 3\nseed = 4\n", encoding="utf-8")
    return path


def test_precedence_of_layers_and_origins(file: Path) -> None:
    config, origins = resolve(
        base={"train": {"lr": 0.5, "warmup": 7}},
        file=file,
        environ={"FCOS_TRAIN__EPOCHS": "20", "FCOS_TRAIN__BATCH": "30", "FCOS_TRAIN__SEED": "40", "HOME": "/root"},
        assignments=["train.batch=300", "train.seed=400"],
        flags={"train.seed": 4000, "train.amp": None},
    )
    train = config.train
    assert (train.warmup, train.lr, train.epochs, train.batch, train.seed) == (7, 0.01, 20, 300, 4000)
    assert origins == {
        "train.warmup": "built-in recipe",
        "train.lr": str(file),
        "train.epochs": "environment FCOS_TRAIN__EPOCHS",
        "train.batch": "--set train.batch",
        "train.seed": "flag",
    }
    assert train.amp == "auto"  # an omitted flag keeps the default and has no origin


def test_defaults_without_any_layer() -> None:
    assert resolve(environ={}) == (Config(), {})


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCOS_DATA__SIZE", "[64, 96]")
    assert resolve()[0].data.size == (64, 96)


def test_fcos_debug_is_not_a_setting() -> None:
    assert resolve(environ={"FCOS_DEBUG": "1"}) == (Config(), {})


def test_nested_settings() -> None:
    config, _ = resolve(
        environ={"FCOS_MODEL__CONVENTIONS__SCORE": "product"},
        assignments=["model.conventions.scales = true", "model.ranges=[32, 64, 128, 256]", "train.device=cuda:1"],
    )
    assert config.model.conventions == Conventions(score="product", scales=True)
    assert config.model.ranges == (32, 64, 128, 256)
    assert config.train.device == "cuda:1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.02", 0.02),
        ("3", 3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("cuda:1", "cuda:1"),
        ("", ""),
        ("a b", "a b"),
    ],
)
def test_value_is_parsed_as_toml_or_kept_as_text(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("train.lrr", "train.lr"), ("trian.epochs", "train.epochs"), ("lr", "train.lr"), ("model.conv", "model.convs")],
)
def test_unknown_setting_suggests_the_nearest_name(wrong: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(environ={}, assignments=[f"{wrong}=1"])
    assert repr(wrong) in caught.value.what
    assert caught.value.where == f"--set {wrong}"
    assert caught.value.remedy == f"did you mean {near}?"


def test_unknown_setting_without_a_similar_name_refers_to_dry_run() -> None:
    with pytest.raises(UsageError, match="dry-run"):
        resolve(environ={}, assignments=["quux=1"])


def test_unknown_setting_is_refused_in_every_layer(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("[train]\nlerning_rate = 1\n", encoding="utf-8")
    for layer, where in (
        ({"file": path}, str(path)),
        ({"environ": {"FCOS_TRAIN__EPOCH": "1"}}, "environment FCOS_TRAIN__EPOCH"),
        ({"flags": {"train.nope": 1}}, "flag"),
    ):
        with pytest.raises(UsageError, match="unknown setting") as caught:
            resolve(**{"environ": {}, **layer})  # type: ignore[arg-type]
        assert caught.value.where == where


def test_assigning_a_value_to_a_section_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown setting 'train'"):
        resolve(environ={}, assignments=["train=3"])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.epochs", "many"),
        ("train.epochs", "0"),
        ("train.epochs", "1.5"),
        ("train.amp", "int8"),
        ("data.size", "[320]"),
        ("data.size", "[320, true, 5]"),
        ("augment.flip", "1.5"),
        ("model.conventions.score", "cube"),
        ("model.candidates", "0"),
    ],
)
def test_invalid_value_names_its_key_and_origin(key: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(environ={}, assignments=[f"{key}={text}"])
    assert caught.value.where is not None
    assert caught.value.where.startswith(key)
    assert f"--set {key}" in caught.value.where
    assert "but got" in caught.value.what


def test_invalid_value_names_the_highest_layer(file: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(file=file, environ={"FCOS_TRAIN__LR": "-1"})
    assert caught.value.where == "train.lr (environment FCOS_TRAIN__LR)"


def test_contradicting_values_name_their_origins() -> None:
    with pytest.raises(UsageError, match="channels = 100 is not a multiple of groups = 32") as caught:
        resolve(environ={}, assignments=["model.channels=100"])
    assert caught.value.what == "channels = 100 is not a multiple of groups = 32"
    assert "--set model.channels" in str(caught.value.where)
    with pytest.raises(UsageError, match="ascending"):
        resolve(environ={}, assignments=["model.ranges=[64, 32, 128, 256]"])


@pytest.mark.parametrize("wrong", ["train.lr", "=3", " = 3"])
def test_assignment_needs_a_key_and_a_value(wrong: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        resolve(environ={}, assignments=[wrong])


def test_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    for name, content in (
        ("broken.toml", b"[train\nlr = "),
        ("binary.toml", b"\xff\xfe\x00"),
        ("twice.toml", b"a=1\na=2"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not valid TOML") as caught:
            resolve(file=path, environ={})
        assert caught.value.where == str(path)
    for path in (tmp_path / "gone.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            resolve(file=path, environ={})
        assert caught.value.where == str(path)


def test_flatten_joins_keys_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def reread(config: Config, folder: Path) -> Config:
    path = folder / "again.toml"
    path.write_bytes(to_toml(config).encode())
    return resolve(file=path, environ={})[0]


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(data=DataConfig(path='C:\\data\\"quoted"\nand 日本 \t\x7f 🙂', size=(64, 96), val_fraction=1e-7)),
        Config(train=TrainConfig(lr=1e-5, clip=1e16, ema=0, workers=0, seed=2**40)),
        Config(train=TrainConfig(clip=float("inf"))),
        Config(model=ModelConfig(conventions=Conventions(radius=0.0, scales=True, activation="exp"), norm="batch")),
        Config(augment=AugmentConfig(scale=(1.0, 1.0), colour=0)),
    ],
    ids=["default", "text", "numbers", "infinity", "conventions", "tuples"],
)
def test_config_survives_a_round_trip(config: Config, tmp_path: Path) -> None:
    assert reread(config, tmp_path) == config


probability = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    path=st.text(st.characters(codec="utf-8"), max_size=20),
    lr=st.floats(0, 1e6, exclude_min=True),
    flip=probability,
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    ranges=st.lists(st.floats(1, 1e4), min_size=4, max_size=4, unique=True).map(sorted),
    score=st.sampled_from(["sqrt", "product"]),
)
def test_any_config_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    path: str,
    lr: float,
    flip: float,
    size: tuple[int, int],
    ranges: list[float],
    score: str,
) -> None:
    config = Config.model_validate(
        {
            "data": {"path": path, "size": size},
            "train": {"lr": lr},
            "augment": {"flip": flip},
            "model": {"ranges": ranges, "conventions": {"score": score}},
        }
    )
    assert reread(config, tmp_path_factory.getbasetemp()) == config


def test_written_config_gives_every_setting_an_origin(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(Config()), encoding="utf-8")
    _, origins = resolve(file=path, environ={})
    assert origins.keys() == flatten(Config().model_dump()).keys()


def test_strides_can_be_set_in_every_layer(tmp_path: Path) -> None:
    fine = (4, 8, 16, 32, 64)
    (tmp_path / "a.toml").write_text("[model]\nstrides = [4, 8, 16, 32, 64]\n", encoding="utf-8")
    assert resolve(file=tmp_path / "a.toml", environ={})[0].model.strides == fine
    assert resolve(environ={"FCOS_MODEL__STRIDES": "[4, 8, 16, 32, 64]"})[0].model.strides == fine
    config, _ = resolve(environ={}, assignments=["model.strides=[4,8,16,32,64]"])
    assert config.model.strides == fine
    (tmp_path / "b.toml").write_text(to_toml(config), encoding="utf-8")
    assert resolve(file=tmp_path / "b.toml", environ={})[0] == config
    with pytest.raises(UsageError, match=r"must be \[8, 16, 32, 64, 128\], \[4, 8, 16, 32, 64\] or \[8, 16, 32\]"):
        resolve(environ={}, assignments=["model.strides=[8,16]"])


def test_three_levels_can_be_set_with_and_without_their_ranges() -> None:
    three = ["model.strides=[8,16,32]"]
    assert resolve(environ={}, assignments=three)[0].model.ranges == (64, 128)
    assert resolve(environ={}, assignments=[*three, "model.ranges=[16,32]"])[0].model.ranges == (16, 32)
    with pytest.raises(UsageError, match="must be 2 numbers for these strides"):
        resolve(environ={}, assignments=[*three, "model.ranges=[16,32,64,128]"])


def test_a_named_network_is_above_the_built_in_recipe_and_below_everything_else(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[model]\nconvs = 3\n")
    base = {"model": {"channels": 32, "groups": 16}, "data": {"size": [160, 160]}}
    config, origins = resolve(file=file, environ={}, flags={"data.size": (64, 64)}, base=base, network="nano")
    assert (config.model.channels, config.model.groups, config.model.convs) == (64, 16, 3)
    assert config.data.size == (64, 64)
    assert config.model.tower == "separable"
    assert {key: origins[key] for key in ("model.channels", "model.groups", "model.convs", "data.size")} == {
        "model.channels": "--model nano",
        "model.groups": "built-in recipe",
        "model.convs": str(file),
        "data.size": "flag",
    }


def test_without_a_network_nothing_changes() -> None:
    assert resolve(environ={}, network=None) == resolve(environ={}) == (Config(), {})
