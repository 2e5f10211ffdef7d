"""Config: every setting of a run in one typed tree. File, environment and flags are laid over the defaults in turn."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from fcos_cli.errors import UsageError
from fcos_cli.model.config import BoxLoss, ClassLoss, ModelConfig

PREFIX = "FCOS_"
RESERVED = {"FCOS_DEBUG"}


class DataConfig(BaseModel):
    """How pictures become network input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field("", description="the data set's folder or annotation file")
    resize: Literal["letterbox", "shortest"] = Field("letterbox", description="rule at prediction; travels with it")
    size: tuple[PositiveInt, PositiveInt] = Field(
        (320, 320), description="height, width; for shortest: short side, longest side"
    )
    val_fraction: float = Field(0.1, gt=0, lt=1, description="set aside where the data has no val split")
    split_seed: int = Field(0, description="seed of that split")
    drop_empty: bool = Field(False, description="leave out pictures without objects")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.resize == "shortest" and self.size[0] > self.size[1]:
            raise ValueError(f"size = {self.size} must be (short side, longest side) for resize = shortest")
        return self


class AugmentConfig(BaseModel):
    """Changes made at random to training pictures; probabilities 0…1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(0.5, ge=0, le=1, description="mirror left-right")
    turn: float = Field(0.0, ge=0, le=1, description="turn by 90, 180 or 270 degrees: for pictures without an up")
    crop: float = Field(0.5, ge=0, le=1, description="IoU crop: a part that keeps some box well inside")
    zoom_out: float = Field(0.3, ge=0, le=1, description="put the picture on a larger canvas")
    zoom_out_max: float = Field(2.0, ge=1, description="largest side of that canvas, in picture sides")
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.75, 1.25), description="multi-scale: size relative to the network input, from … to"
    )
    colour: float = Field(0.5, ge=0, le=1, description="brightness, contrast, saturation, hue")

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("the first of the two must be the smaller")
        return scale


class TrainConfig(BaseModel):
    """The recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(30, ge=1)
    batch: int = Field(8, ge=1, description="pictures per step and process")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, description="learning rate for 16 pictures a step; scaled to the real number")
    backbone_lr: float = Field(0.5, ge=0, description="factor for the backbone; 0 freezes it")
    weight_decay: float = Field(0.02, ge=0, description="not for norms, biases and scales")
    warmup: int = Field(100, ge=0, description="steps; at most a tenth of the run")
    clip: float = Field(10.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights; 0 = none")
    class_loss: ClassLoss = "focal"
    box_loss: BoxLoss = "giou"
    box_by_centerness: bool = Field(False, description="central points weigh more in the box loss")
    box_weight: float = Field(1.0, ge=0)
    centerness_weight: float = Field(1.0, ge=0)
    init: str = Field("auto", description="auto, offline, pretrained, default, coco, random, a file or run folder")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field("auto", description="auto: where the hardware has it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    workers: int = Field(-1, ge=-1, description="loader processes; -1 = half the processors, at most 8")
    val_every: int = Field(1, ge=1, description="epochs between validations; the last epoch always is")
    save_minutes: float = Field(5.0, gt=0, description="longest time between two saved states")
    seed: int = 0


class Config(BaseModel):
    """All of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()


Origins = dict[str, str]
"""Dotted key → where its value came from; keys that are not in it have their default."""


def resolve(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    assignments: list[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> tuple[Config, Origins]:
    """Defaults < `base` < TOML file < FCOS_* environment < `--set key=value` < flags → Config and its origins.

    flags: dotted key → value, None = not given. Environment: FCOS_TRAIN__LR is train.lr. Raises UsageError naming the
    key, its origin and the nearest known name.
    """
    origins: Origins = {}
    tree: dict[str, Any] = {}
    for key, value in flatten(base or {}).items():
        _put(tree, origins, key, value, "built-in recipe")
    if file is not None:
        for key, value in flatten(read_toml(file)).items():
            _put(tree, origins, key, value, str(file))
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(PREFIX) and name not in RESERVED:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _put(tree, origins, key, parse_value(text), f"environment {name}")
    for assignment in assignments or []:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {assignment!r} is not KEY=VALUE", remedy="for example --set train.lr=0.002")
        _put(tree, origins, key.strip(), parse_value(text.strip()), f"--set {key.strip()}")
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, origins, key, value, "flag")
    try:
        return Config.model_validate(tree), origins
    except ValidationError as error:
        raise _explain(error, origins) from error


def read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("the config file cannot be read", where=file, remedy="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the config file is not valid TOML: {error}", where=file) from error


def parse_value(text: str) -> Any:
    """A TOML value where it parses as one (0.02, true, [320, 320], "x"), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


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
    """The whole config as TOML that `resolve` reads back to an equal one. None has no TOML form and is left out."""
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
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)


def _put(tree: dict[str, Any], origins: Origins, key: str, value: Any, origin: str) -> None:
    """Set a dotted key in the nested tree. Raises UsageError for a key that Config does not have."""
    known = list(flatten(Config().model_dump()))
    if key not in known:
        near = get_close_matches(key, known, n=1) or [k for k in known if k.endswith("." + key.rpartition(".")[2])][:1]
        remedy = f"did you mean {near[0]}?" if near else "fcos train --dry-run prints all keys"
        raise UsageError(f"unknown setting {key!r}", where=origin, remedy=remedy)
    *sections, name = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[name] = value
    origins[key] = origin


def _explain(error: ValidationError, origins: Origins) -> UsageError:
    """Pydantic's first complaint as one of ours."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    # a rule between several settings is told at their section: blame those of it that somebody set
    blamed = [k for k in origins if k == key or k.startswith(f"{key}.")]
    where = ", ".join(f"{k} ({origins[k]})" for k in blamed) or key
    return UsageError(f"{first['msg']}, but got {first['input']!r}"[:300], where=where)
