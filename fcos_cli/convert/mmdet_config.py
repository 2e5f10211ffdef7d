"""Read the config that mmdetection stores in its checkpoints. It is parsed, never executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata

_BASE_STRIDES = [8, 16, 32, 64, 128]


def metadata_from_meta(meta: Mapping[str, Any]) -> CheckpointMetadata:
    """Read settings that affect results from `meta`: the config text, class names and mmdetection's version."""
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    metadata = _metadata_of_config(read_config(text)) if text else CheckpointMetadata()
    dataset = _nested(meta, "dataset_meta")
    names = meta.get("CLASSES") or dataset.get("CLASSES") or dataset.get("classes")
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        metadata = metadata.updated(names=tuple(names))
    if str(meta.get("mmdet_version", "")).startswith(("0.", "1.")):
        metadata = metadata.updated(conventions={"box_ends": "inclusive", "area": "plus-one"})
    return metadata


def read_config(text: str) -> dict[str, Any]:
    """Return the assignments of a config file. Literals and `dict(key=…)` are evaluated; anything else is None."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    pairs = [(node.targets[0], node.value) for node in body if isinstance(node, ast.Assign)]
    return {target.id: _value(value) for target, value in pairs if isinstance(target, ast.Name)}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {item.arg: _value(item.value) for item in node.keywords if item.arg is not None}
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        return {key: _value(value) for key, value in zip(keys, node.values, strict=True) if isinstance(key, str)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None


def _metadata_of_config(config: Mapping[str, Any]) -> CheckpointMetadata:
    head, backbone = _nested(config, "model", "bbox_head"), _nested(config, "model", "backbone")
    if head.get("type") not in (None, "FCOSHead"):
        return CheckpointMetadata(unsupported=f"the head in the config is {head['type']}, not FCOSHead")
    strides = head.get("strides") or _BASE_STRIDES
    if [side[0] if isinstance(side, list) else side for side in strides] != _BASE_STRIDES:
        return CheckpointMetadata(unsupported=f"the config has strides {strides}; only {_BASE_STRIDES} are supported")
    conventions: dict[str, Any] = {}
    preset = None
    if head:
        preset = "mmdet-tricks" if head.get("norm_on_bbox", False) else "mmdet-base"
        conventions["centerness_on"] = "box" if head.get("centerness_on_reg", False) else "class"
        center_sampling = head.get("center_sampling", False)
        conventions["radius"] = float(head.get("center_sample_radius", 1.5)) if center_sampling else 0.0
    model: dict[str, Any] = {}
    if backbone.get("style") in ("caffe", "pytorch"):
        model["stride_in_1x1"] = backbone["style"] == "caffe"
    model |= _thresholds(_nested(config, "model", "test_cfg") or _nested(config, "test_cfg"))
    pixels, bgr = _pixels(_nested(config, "model", "data_preprocessor") or _nested(config, "img_norm_cfg"))
    return CheckpointMetadata(
        preset=preset, evidence="the config", conventions=conventions, model=model | pixels, bgr=bgr
    )


def _thresholds(test: Mapping[str, Any]) -> dict[str, Any]:
    nms = _nested(test, "nms")
    values = {
        "candidates": test.get("nms_pre"),
        "score_threshold": test.get("score_thr"),
        "nms_iou": nms.get("iou_threshold", nms.get("iou_thr")),
        "max_detections": test.get("max_per_img"),
    }
    return {key: value for key, value in values.items() if isinstance(value, int | float) and value > 0}


def _pixels(settings: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """Return mean and std as RGB, and whether the network takes BGR input."""
    mean, std = settings.get("mean"), settings.get("std")
    rgb = settings.get("bgr_to_rgb", settings.get("to_rgb"))
    if not isinstance(rgb, bool) or not isinstance(mean, list) or not isinstance(std, list):
        return {}, None
    if len(mean) != 3 or len(std) != 3 or not all(isinstance(value, int | float) for value in mean + std):
        return {}, None
    order = slice(None) if rgb else slice(None, None, -1)
    return {"mean": tuple(mean[order]), "std": tuple(std[order])}, not rgb


def _nested(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the mapping at `path`, or an empty one."""
    for key in path:
        inner = tree.get(key)
        tree = inner if isinstance(inner, Mapping) else {}
    return tree
