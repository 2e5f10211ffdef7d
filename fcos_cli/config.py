"""Every setting of a run in one typed tree. Defaults are overridden by file, environment and flags, in that order."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fcos_cli.data.geometry import MAX_SIDE
from fcos_cli.errors import UsageError
from fcos_cli.model.config import BoxLoss, ClassLoss, ModelConfig
from fcos_cli.model.networks.named import named_network

PREFIX = "FCOS_"
RESERVED = {"FCOS_DEBUG", "FCOS_WAIT_MINUTES"}

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Scale = Annotated[float, Field(gt=0, le=100)]

AUTOMATIC = (
    "data.size",
    "model.strides",
    "model.backbone_norm",
    "train.backbone_lr",
    "train.freeze",
    "model.ranges",
    "train.epochs",
    "train.val_every",
    "train.repeat",
    "train.lr",
    "train.weight_decay",
    "augment.turn",
    "augment.mosaic",
)
"""Settings that `fcos train` chooses from the data, unless they are set. The value `auto` sets them back to that."""


class DataConfig(BaseModel):
    """How images become network input."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str = Field("", description="folder or annotation file of the data set")
    resize: Literal["letterbox", "shortest"] = Field(
        "letterbox", description="resize rule at prediction time; stored in the model"
    )
    size: tuple[Side, Side] = Field(
        (320, 320),
        description="height, width; for shortest: shorter side, limit of the longer side, and training shows images of "
        "the rarer orientation, portrait or landscape, smaller",
    )
    tile: int = Field(
        0, ge=0, le=1_000_000, description="train and validate on tiles of so many source pixels, at least 32; 0: off"
    )
    val_fraction: float = Field(0.1, gt=0, lt=1, description="fraction held out if the data has no val split")
    split_seed: int = Field(0, ge=0, description="seed of that split")
    drop_empty: bool = Field(False, description="skip images without objects")
    cache: bool = Field(True, description="keep decoded images in memory, shrunk to twice the input, if they fit")

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.resize == "shortest" and self.size[0] > self.size[1]:
            raise ValueError(f"size = {self.size} must be (short side, longest side) for resize = shortest")
        return self


class AugmentConfig(BaseModel):
    """Random changes to training images. Probabilities are 0…1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: float = Field(0.5, ge=0, le=1, description="horizontal flip")
    turn: float = Field(
        0.0, ge=0, le=1, description="rotate by 90, 180 or 270 degrees; for objects without an upright orientation"
    )
    crop: float = Field(0.2, ge=0, le=1, description="random crop that keeps the center of at least one box")
    zoom_out: float = Field(0.1, ge=0, le=1, description="place the image on a larger canvas")
    zoom_out_max: float = Field(2.0, ge=1, le=100, description="maximum side of that canvas, relative to the image")
    scale: tuple[Scale, Scale] = Field(
        (0.75, 1.25), description="scale jitter: minimum and maximum size relative to the network input"
    )
    colour: float = Field(0.5, ge=0, le=1, description="brightness, contrast, saturation, hue")
    mosaic: float = Field(0.0, ge=0, le=1, description="four images side by side in place of one")
    mixup: float = Field(0.0, ge=0, le=1, description="a second image over the first, half transparent")
    close_mosaic: float = Field(0.15, ge=0, le=1, description="share of the run, at its end, without mosaic and mixup")

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"the first value of {scale} must not be larger than the second")
        return scale


class TrainConfig(BaseModel):
    """Settings of a training run: optimization, losses, hardware and validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(30, ge=1, le=1_000_000, description="length of the run, if it has no time limit")
    time: float = Field(0, ge=0, description="limit in seconds for the whole run, instead of epochs; 0: none")
    patience: int = Field(0, ge=0, description="end after this many validations without a better AP; 0: never")
    batch: int = Field(8, ge=1, le=65_536, description="images per step and process")
    accumulate: int = Field(1, ge=1, le=65_536, description="compute each batch in this many parts, which saves memory")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with Nesterov momentum 0.9")
    lr: float = Field(2e-3, gt=0, description="learning rate for 16 images per step; scaled to the actual batch")
    backbone_lr: float = Field(1.0, ge=0, description="learning rate factor of the backbone; 0 freezes it")
    freeze: int = Field(
        0, ge=0, le=5, description="backbone stages that are not trained: 2 = up to the map of stride 4"
    )
    weight_decay: float = Field(0.02, ge=0, description="weight decay; not applied to norms, biases and scales")
    warmup: int = Field(100, ge=0, description="warm-up steps; at most a tenth of the run")
    clip: float = Field(10.0, gt=0, allow_inf_nan=True, description="maximum gradient norm")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights; 0 turns averaging off")
    class_loss: ClassLoss = Field("focal", description="focal, varifocal, or plain logistic (cross-entropy)")
    box_loss: BoxLoss = Field("giou", description="GIoU, -log(IoU), or L1 or L2 of the four distances")
    box_by_centerness: bool = Field(False, description="weight the box loss of each point by its centerness")
    box_weight: float = Field(1.0, ge=0, description="weight of the box loss")
    centerness_weight: float = Field(1.0, ge=0, description="weight of the centerness loss")
    init: str = Field("auto", description="auto, offline, pretrained, default, coco, random, a file or run folder")
    teacher: str = Field("", description="a trained detector to learn from besides the labels: a file or run folder")
    teacher_weight: float = Field(1.0, ge=0, description="weight of the differences to the teacher's outputs")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="mixed precision; auto uses it if the hardware supports it"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    tune: bool = Field(True, description="on a CPU, time the convolutions first and compute each in its fastest way")
    workers: int = Field(-1, ge=-1, le=1024, description="loader processes; -1 = half the usable cores, at most 8")
    val_every: int = Field(1, ge=1, description="epochs between validations; the last epoch is always validated")
    export: bool = Field(True, description="write best.onnx at the end, compared with PyTorch")
    save_minutes: float = Field(5.0, gt=0, description="maximum minutes between two saved states")
    tracker: Literal["auto", "none", "tensorboard", "mlflow", "wandb"] = Field(
        "auto", description="experiment tracker; auto is TensorBoard if it is installed"
    )
    repeat: float = Field(
        0, ge=0, le=1, description="repeat images of classes that fewer than this share of the images have (as LVIS)"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of data order, augmentation and new weights")


class Config(BaseModel):
    """All settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()


Origins = dict[str, str]
"""Dotted key → where its value came from. Keys that are missing have their default value."""


def resolve(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    assignments: list[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
    network: str | None = None,
) -> tuple[Config, Origins]:
    """Merge defaults < `base` < `network` < TOML file < FCOS_* environment < `--set key=value` < flags. Return the
    config and its origins.

    network: a name in `model.networks.named`. flags: dotted key → value; None means not given. Environment:
    FCOS_TRAIN__LR sets train.lr. Raises UsageError naming the key, its origin and the nearest known key.
    """
    named = {} if network is None else named_network(network).settings()
    origins: Origins = {}
    tree: dict[str, Any] = {}
    layers = (
        ((key, value, "built-in recipe") for key, value in flatten(base or {}).items()),
        ((key, value, f"--model {network}") for key, value in flatten(named).items()),
        ((key, value, str(file)) for key, value in (flatten(read_toml(file)) if file else {}).items()),
        _from_environment(os.environ if environ is None else environ),
        _from_assignments(assignments or []),
        ((key, value, "flag") for key, value in (flags or {}).items() if value is not None),
    )
    for key, value, origin in chain.from_iterable(layers):
        _put(tree, origins, key, value, origin)
    try:
        return Config.model_validate(tree), origins
    except ValidationError as error:
        raise _explain(error, origins) from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, origin) of each FCOS_* variable."""
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX) and name not in RESERVED:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            yield key, parse_value(text), f"environment {name}"


def _from_assignments(assignments: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, origin) of each `--set KEY=VALUE`. Raises UsageError for any other form."""
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"{assignment!r} is not KEY=VALUE", where="--set", remedy="for example --set train.lr=0.002"
            )
        yield key.strip(), parse_value(text.strip()), f"--set {key.strip()}"


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these values (dotted key → value). Raises ValidationError for a wrong one."""
    tree = config.model_dump()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        node = tree
        for part in section.split("."):
            node = node[part]
        node[name] = value
    return Config.model_validate(tree)


def read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("the config file cannot be read", where=file, remedy="check the path") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError, numbers of 5000 digits
        raise UsageError(f"the config file is not valid TOML: {error}", where=file) from error


def parse_value(text: str) -> Any:
    """Parse `text` as a TOML value (0.02, true, [320, 320], "x"); return the text itself if it is not one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text  # a second line would be another setting


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def to_toml(config: Config) -> str:
    """Write the whole config as TOML that `resolve` reads back to an equal one. None, which TOML lacks, is left out."""
    sections: dict[str, list[str]] = {}
    for key, value in flatten(config.model_dump(mode="json")).items():
        section, _, name = key.rpartition(".")
        if value is not None:
            sections.setdefault(section, []).append(f"{name} = {_toml_value(value)}")
    return "\n\n".join(f"[{section}]\n" + "\n".join(lines) for section, lines in sections.items()) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON and TOML share their escapes
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)


def _put(tree: dict[str, Any], origins: Origins, key: str, value: Any, origin: str) -> None:
    """Set a dotted key in the nested tree. Raises UsageError if Config has no such key."""
    known = list(flatten(Config().model_dump()))
    if key not in known:
        same_name = [k for k in known if k.endswith("." + key.rpartition(".")[2])]
        closest = get_close_matches(key, known, n=1) or same_name[:1]
        remedy = f"did you mean {closest[0]}?" if closest else "fcos train --dry-run prints all keys"
        raise UsageError(f"unknown setting {key!r}", where=origin, remedy=remedy)
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    if value == "auto" and key in AUTOMATIC:
        tree.pop(name, None)
        origins.pop(key, None)
    else:
        tree[name] = value
        origins[key] = origin


def _explain(error: ValidationError, origins: Origins) -> UsageError:
    """Turn pydantic's first error into a UsageError."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    # a check across several settings is reported for their section: name those that were set explicitly
    set_keys = [k for k in origins if k == key or k.startswith(f"{key}.")]
    where = ", ".join(f"{k} ({origins[k]})" for k in set_keys) or key
    ours = first["type"] == "value_error"  # its message already names the values
    what = str(first["ctx"]["error"]) if ours else f"{first['msg']}, but got {first['input']!r}"
    return UsageError(what[:300], where=where)
