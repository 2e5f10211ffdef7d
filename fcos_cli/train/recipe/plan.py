"""Read the settings and data of a run, choose what is automatic, and refuse what cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fcos_cli.config import Config, Origins, resolve, with_values
from fcos_cli.console import warn
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.data.tiling import cut
from fcos_cli.data.tiny_boxes import box_sizes, enlarge
from fcos_cli.distributed.world import announced
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.backbone import check_maps, input_normalization
from fcos_cli.train.initial_weights import model_of_init
from fcos_cli.train.recipe.automatic import AUTO, FROM_BATCH, with_automatic
from fcos_cli.train.recipe.batch_size import choose_batch
from fcos_cli.train.run import resize_rule, tiles_of
from fcos_cli.train.tracking.trackers import check_tracker

INVISIBLE = 0.9
"""Nothing is learned if more than this share of the boxes is smaller than a pixel of the network input."""


@dataclass(frozen=True)
class Plan:
    """Settings and data of a training run that is ready to start. demo: whether it is that of `--demo`."""

    config: Config
    origins: Origins
    train: Dataset
    val: Dataset
    demo: bool = False


def make_plan(
    data: Path | None,
    *,
    file: Path | None,
    assignments: list[str],
    flags: Mapping[str, Any],
    base: Mapping[str, Any],
    network: str | None = None,
) -> Plan:
    """Read the settings and data of a new run. Raises UsageError without data, DataError if the data cannot be used."""
    if data is not None:
        flags = {**flags, "data.path": str(data.absolute())}
    config, origins = _with_model_of_init(
        base, {"file": file, "assignments": assignments, "flags": flags, "network": network}
    )
    if not config.data.path:
        raise UsageError(
            "no data to train on",
            remedy="fcos train DATA, a folder with COCO, YOLO, VOC or LabelMe annotations; or try fcos train --demo",
        )
    check_tracker(config)
    train_set, val_set = read_splits(config)
    config, origins = with_automatic(config, origins, train_set, val_set, network=network)
    check_maps(config.model, size=config.data.size)
    return Plan(config, origins, train_set, val_set)


def _with_model_of_init(base: Mapping[str, Any], layers: Mapping[str, Any]) -> tuple[Config, Origins]:
    """Merge the layers of settings. What they leave open about the network comes from the detector that `train.init`
    names and from the backbone, below all layers, so that `auto` also resets that.
    """
    config, origins = resolve(base=base, **layers)
    inherited = model_of_init(config, origins)
    if "model.ranges" in inherited and "model.strides" in inherited:
        strides = {"model.strides": inherited["model.strides"]}
        if "model.strides" not in resolve(base={**strides, **base}, **layers)[1]:  # `auto`: they may differ
            del inherited["model.ranges"]
    absent = {}
    if "model.backbone" in origins:  # other weights expect another normalization
        facts = {f"model.{key}": value for key, value in input_normalization(config.model.backbone).items()}
        absent = {key: value for key, value in facts.items() if key not in origins and key not in inherited}
    if inherited or absent:
        sources = dict.fromkeys(inherited, "init") | dict.fromkeys(absent, f"timm's {config.model.backbone}")
        config, origins = resolve(base={**inherited, **absent, **base}, **layers)
        origins.update({key: source for key, source in sources.items() if key in origins})
    return config, origins


def read_splits(config: Config) -> tuple[Dataset, Dataset]:
    """Read the train and val splits; train as tiles, and without those that have no objects, if the settings say so.

    Both have one class table. Raises UsageError if tiles are too small.
    """
    path, data, tiling = Path(config.data.path), config.data, tiles_of(config)
    train_set = read_dataset(path, split="train", val_fraction=data.val_fraction, seed=data.split_seed)
    val_set = read_dataset(path, split="val", val_fraction=data.val_fraction, seed=data.split_seed)
    if tiling is not None:
        train_set = cut(train_set, tiling, seed=data.split_seed)
    return _without_empty(train_set) if data.drop_empty else train_set, val_set


def _without_empty(dataset: Dataset) -> Dataset:
    kept = [sample for sample in dataset.samples if len(sample.boxes)]
    left_out = len(dataset) - len(kept)
    if not kept or not left_out:  # if there are no boxes at all, `check_settings` reports it
        return dataset
    return replace(dataset, samples=kept, origin=f"{dataset.origin}; {left_out} without objects left out")


def with_chosen_batch(plan: Plan) -> Plan:
    """The plan with the best batch size for this machine, and with what is chosen from it."""
    batch = choose_batch(plan.config, plan.train, plan.val)
    config = with_values(plan.config, {"train.batch": batch})
    origins = {**plan.origins, "train.batch": "--batch auto"}
    for key in FROM_BATCH:
        if origins.get(key, "").startswith(AUTO):
            del origins[key]
    config, origins = with_automatic(config, origins, plan.train, plan.val)
    return replace(plan, config=config, origins=origins)


def check_settings(plan: Plan) -> None:
    """Raise UsageError or DataError for settings that do not fit the data."""
    config, count = plan.config.train, len(plan.train)
    processes = announced().size
    if config.batch * processes > count:
        each, fewer = (f" in each of {processes} processes", ", or fewer processes") if processes > 1 else ("", "")
        raise UsageError(
            f"a batch of {config.batch}{each} is larger than the training data ({count} images)",
            where="train.batch",
            remedy=f"use --batch {max(1, count // (4 * processes))}{fewer}",
        )
    if config.accumulate > config.batch:
        raise UsageError(
            f"a batch of {config.batch} cannot be computed in {config.accumulate} parts",
            where="train.accumulate",
            remedy=f"use at most {config.batch}",
        )
    check_norms(plan.config)
    _check_boxes(plan)
    _check_sizes(plan)
    if config.patience and not plan.val.has_boxes:
        raise DataError(
            "patience needs a val split with boxes: without them there is no AP",
            where=plan.val.source,
            remedy="add labelled images to val, or omit --patience",
        )


def check_norms(config: Config) -> None:
    """Raise UsageError if a BatchNorm would see a single value per channel; warn if a GroupNorm sees one per group.

    That happens in maps of one cell. A norm turns a single value into 0: torch refuses to train such a BatchNorm.
    """
    model, train, size = config.model, config.train, config.data.size
    single = train.batch // train.accumulate == 1  # images that are normalized together
    place = f"one cell, at input size {size[0]} x {size[1]}"
    top = max(size) <= model.strides[-1]
    if top and model.norm == "group" and model.groups == model.channels:
        fewer = next(groups for groups in range(model.channels // 2, 0, -1) if model.channels % groups == 0)
        warn(
            f"the coarsest level has {place}, and with {model.groups} groups for {model.channels} channels GroupNorm "
            f"leaves nothing of it: use --set model.groups={fewer}, or a larger --size"
        )
    towers = top and model.norm in ("batch", "batch-per-level")
    if single and (towers or (max(size) <= 32 and model.backbone_norm == "trained")):
        key, other = ("model.norm", "group") if towers else ("model.backbone_norm", "frozen")
        raise UsageError(
            f"BatchNorm has one value per channel in a map of {place}, with one image at a time",
            where=key,
            remedy=f"use a larger --batch, a larger --size or --set {key}={other}",
        )


def _check_boxes(plan: Plan) -> None:
    """Raise DataError if there is nothing to train on, or if val cannot be measured because of errors in it."""
    for dataset in (plan.train, plan.val):
        errors = [finding for finding in dataset.findings if finding.severity == "error"]
        if dataset.has_boxes or (dataset is plan.val and not errors):
            continue
        ignored = sum(len(sample.boxes) for sample in dataset.samples)
        what = f"all {ignored} boxes of the {dataset.split} split are ignored" if ignored else ""
        what = what or f"the {dataset.split} split has no boxes"
        why = "".join(f"; {finding.id}: {finding.message} ({finding.place})" for finding in errors[:1])
        remedy = errors[0].remedy if errors else "check that the labels were found, and not marked difficult or crowd"
        raise DataError(what + why, where=dataset.source, remedy=remedy)


def _check_sizes(plan: Plan) -> None:
    """Raise UsageError if nearly all boxes are smaller than a pixel of the network input."""
    rule, sizes = resize_rule(plan.config), box_sizes(plan.train)
    share = sizes.invisible(rule)
    if share > INVISIBLE:
        raise UsageError(
            f"{share:.0%} of {len(sizes.sides):,} boxes are smaller than a pixel at input size "
            f"{rule.size[0]} x {rule.size[1]}: nothing can be learned from them",
            where="data.size",
            remedy=enlarge(sizes, rule, stride=plan.config.model.strides[0]),
        )
