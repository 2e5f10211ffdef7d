"""Fill in the settings that the user left open, from the data, the machine and the time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fcos_cli.config import Config, Origins, with_values
from fcos_cli.data.repeat import epoch_length, repeat_factors
from fcos_cli.data.samples import Dataset
from fcos_cli.data.tiny_boxes import FINER_COST
from fcos_cli.distributed.world import announced
from fcos_cli.model.backbone import check_maps
from fcos_cli.model.networks.named import named_network
from fcos_cli.train.recipe.choices import (
    SMALLEST,
    Choice,
    choose_backbone_lr,
    choose_epochs,
    choose_freeze,
    choose_lr,
    choose_mosaic,
    choose_norm,
    choose_ranges,
    choose_repeat,
    choose_shape,
    choose_size,
    choose_strides,
    choose_turn,
    choose_val_every,
    choose_weight_decay,
    input_shape,
)
from fcos_cli.train.recipe.facts import facts_of
from fcos_cli.train.recipe.orientation import upright_share
from fcos_cli.train.run import open_run
from fcos_cli.train.speed.estimate import step_seconds

AUTO = "auto: "
"""How the origin of an automatic setting begins; its reason follows."""

FROM_BATCH = ("model.backbone_norm", "train.epochs", "train.val_every")
"""Automatic settings that depend on the batch size."""

SHORT = 300.0
"""Seconds; a run with a shorter limit takes the smallest input, since measuring the machine or looking at objects is
not worthwhile.
"""

USABLE = 0.9
"""Share of a time limit that is spent in training steps."""


def with_automatic(
    config: Config, origins: Origins, train_set: Dataset, val_set: Dataset, *, network: str | None = None
) -> tuple[Config, Origins]:
    """Choose every automatic setting that has no origin yet. The new origins are the reasons.

    network: a name in `model.networks.named`; most are made for one input size. Otherwise, a run with a time limit
    first takes a few steps, to see how many pixels this machine can train on in that time.
    """
    facts = facts_of(train_set)

    def pixels() -> float | None:
        limit = config.train.time
        if not limit or announced().size > 1:  # several processes would measure different rates
            return None
        return 0.0 if limit < SHORT else limit * USABLE * _pixel_rate(config, train_set, val_set)

    def size() -> Choice:
        named = None if network is None else named_network(network)
        if named is not None and not named.any_size:
            return choose_shape(facts, longer=named.size)
        return choose_size(facts, pixels=pixels(), finer=1.0 if "model.strides" in origins else FINER_COST)

    @cache
    def told_apart() -> float | None:
        return None if 0 < config.train.time < SHORT else upright_share(config, train_set)

    choosers: dict[str, Callable[[Config], Choice]] = {
        "model.backbone_norm": lambda c: choose_norm(batch=c.train.batch // c.train.accumulate, told_apart=told_apart),
        "train.freeze": lambda _: choose_freeze(told_apart=told_apart),
        "data.size": lambda _: size(),  # after what makes steps faster, since a time limit is a matter of speed
        "model.strides": lambda c: choose_strides(facts, size=c.data.size),
        "model.ranges": lambda c: choose_ranges(c.model.strides, size=c.data.size),
        "train.repeat": lambda _: choose_repeat(facts),
        "train.epochs": lambda c: choose_epochs(
            images=_epoch_length(c, train_set), batch=c.train.batch * announced().size
        ),
        "train.val_every": lambda c: choose_val_every(epochs=c.train.epochs),
        "train.lr": lambda c: choose_lr(c.train.optimizer, told_apart=told_apart),
        "train.weight_decay": lambda c: choose_weight_decay(c.train.optimizer),
        "train.backbone_lr": lambda _: choose_backbone_lr(told_apart=told_apart),
        "augment.mosaic": lambda c: choose_mosaic(facts, size=c.data.size),
        "augment.turn": lambda _: choose_turn(facts, names=train_set.classes.names, told_apart=told_apart),
    }
    for key, choose in choosers.items():
        if key not in origins and not _is_meaningless(key, config):
            value, reason = choose(config)
            config = with_values(config, {key: value})
            origins = {**origins, key: AUTO + reason}
    return config, origins


def _is_meaningless(key: str, config: Config) -> bool:
    """Whether a setting does not matter, or means something else, given the others."""
    if key in ("train.epochs", "train.val_every"):
        return config.train.time > 0
    return key == "data.size" and config.data.resize != "letterbox"


def _epoch_length(config: Config, train_set: Dataset) -> int:
    classes, threshold = len(train_set.classes), config.train.repeat
    return epoch_length(repeat_factors(train_set.samples, classes=classes, threshold=threshold))


def _pixel_rate(config: Config, train_set: Dataset, val_set: Dataset) -> float:
    """Input pixels per second that this machine trains on, from a few steps with a small input."""
    size = input_shape(facts_of(train_set), SMALLEST)
    check_maps(config.model, size=size)
    tried = with_values(config, {"data.size": size})
    with tempfile.TemporaryDirectory() as folder, open_run(tried, train_set, val_set, Path(folder)) as run:
        return size[0] * size[1] * config.train.batch / step_seconds(run)
