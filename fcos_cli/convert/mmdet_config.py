"""What an mmdetection checkpoint says of itself: the config that mmdetection writes into it, read, never executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata

_BASE_STRIDES = [8, 16, 32, 64, 128]


def metadata_of(meta: Mapping[str, Any]) -> CheckpointMetadata:
    """Settings that change answers, from `meta`: the config's text, the class names, mmdetection's version."""
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    metadata = _metadata_of_config(read_config(text)) if text else CheckpointMetadata()
    inside = _inside(meta, "dataset_meta")
    names = meta.get("CLASSES") or inside.get("CLASSES") or inside.get("classes")
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        metadata = metadata.with_(names=tuple(names))
    if str(meta.get("mmdet_version", "")).startswith(("0.", "1.")):
        metadata = metadata.with_(conventions={"box_ends": "inclusive", "area": "plus-one"})
    return metadata


def read_config(text: str) -> dict[str, Any]:
    """A config file's assignments: literals, and `dict(key=…)`; whatever else it says is None."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    pairs = [(node.targets[0], node.value) for node in body if isinstance(node, ast.Assign)]
    return {target.id: _value(value) for target, value in pairs if isinstance(target, ast.Name)}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
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
    head, body = _inside(config, "model", "bbox_head"), _inside(config, "model", "backbone")
    if head.get("type") not in (None, "FCOSHead"):
        return CheckpointMetadata(refusal=f"its config says {head['type']}, not FCOSHead")
    strides = head.get("strides") or _BASE_STRIDES
    if [side[0] if isinstance(side, list) else side for side in strides] != _BASE_STRIDES:
        return CheckpointMetadata(refusal=f"its config says strides {strides}; only {_BASE_STRIDES} are supported")
    conventions: dict[str, Any] = {}
    preset = None
    if head:
        normalised = bool(head.get("norm_on_bbox", False))
        preset = "mmdet-tricks" if normalised else "mmdet-base"
        conventions["centerness_on"] = "box" if head.get("centerness_on_reg", False) else "class"
        sampled = bool(head.get("center_sampling", False))
        conventions["radius"] = float(head.get("center_sample_radius", 1.5)) if sampled else 0.0
    model: dict[str, Any] = {}
    if body.get("style") in ("caffe", "pytorch"):
        model["stride_in_1x1"] = body["style"] == "caffe"
    model |= _thresholds(_inside(config, "model", "test_cfg") or _inside(config, "test_cfg"))
    pixels, bgr = _pixels(_inside(config, "model", "data_preprocessor") or _inside(config, "img_norm_cfg"))
    return CheckpointMetadata(preset=preset, why="its config", conventions=conventions, model=model | pixels, bgr=bgr)


def _thresholds(test: Mapping[str, Any]) -> dict[str, Any]:
    nms = _inside(test, "nms")
    values = {
        "candidates": test.get("nms_pre"),
        "score_threshold": test.get("score_thr"),
        "nms_iou": nms.get("iou_threshold", nms.get("iou_thr")),
        "max_detections": test.get("max_per_img"),
    }
    return {key: value for key, value in values.items() if isinstance(value, int | float) and value > 0}


def _pixels(facts: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """mean and std as RGB, and whether the network sees blue first."""
    mean, std = facts.get("mean"), facts.get("std")
    rgb = facts.get("bgr_to_rgb", facts.get("to_rgb"))
    if not isinstance(rgb, bool) or not isinstance(mean, list) or not isinstance(std, list):
        return {}, None
    if len(mean) != 3 or len(std) != 3 or not all(isinstance(value, int | float) for value in mean + std):
        return {}, None
    turn = slice(None) if rgb else slice(None, None, -1)
    return {"mean": tuple(mean[turn]), "std": tuple(std[turn])}, not rgb


def _inside(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The table at `path`, or an empty one."""
    for key in path:
        inner = tree.get(key)
        tree = inner if isinstance(inner, Mapping) else {}
    return tree
