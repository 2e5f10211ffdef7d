"""Read the config that mmdetection stores in its checkpoints. It is parsed, never executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from fcos_cli.convert.checkpoint_metadata import CheckpointMetadata

TEST_CFG = {
    "candidates": "nms_pre",
    "score_threshold": "score_thr",
    "nms_iou": "nms.iou_threshold",
    "max_detections": "max_per_img",
}
"""Fields of ModelConfig → mmdetection's names in `test_cfg`."""

_BASE_STRIDES = [8, 16, 32, 64, 128]
_MAX_SIDE = 32_768  # that of `data.geometry`


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
    if (unsupported := _unsupported(config)) is not None:
        return CheckpointMetadata(unsupported=unsupported)
    head, backbone = _nested(config, "model", "bbox_head"), _nested(config, "model", "backbone")
    conventions: dict[str, Any] = {}
    preset = None
    if head:
        preset = "mmdet-tricks" if head.get("norm_on_bbox", False) else "mmdet-base"
        conventions["centerness_on"] = "box" if head.get("centerness_on_reg", False) else "class"
        conventions["radius"] = float(_radius(head))
    model: dict[str, Any] = {}
    if backbone.get("style") in ("caffe", "pytorch"):
        model["stride_in_1x1"] = backbone["style"] == "caffe"
    model |= _thresholds(_test_cfg(config))
    pixels, bgr = _pixels(config)
    return CheckpointMetadata(
        preset=preset, evidence="the config", conventions=conventions, model=model | pixels, bgr=bgr, size=_size(config)
    )


def _unsupported(config: Mapping[str, Any]) -> str | None:
    """What in the config would give other results than a converted model; None if nothing is known to.

    What is left out has mmdetection's default: no ReLU, and no fixed aspect ratio in version 3, which has `scale`.
    """
    head, neck = _nested(config, "model", "bbox_head"), _nested(config, "model", "neck")
    kind, nms = head.get("type"), _nested(_test_cfg(config), "nms").get("type")
    strides, radius = head.get("strides") or _BASE_STRIDES, _radius(head)
    squares = [[stride, stride] for stride in _BASE_STRIDES]
    found = (
        (kind not in (None, "FCOSHead"), f"the head in the config is {kind}, not FCOSHead"),
        (
            strides not in (_BASE_STRIDES, squares),
            f"the config has strides {strides}; only {_BASE_STRIDES} are supported",
        ),
        (
            not isinstance(radius, int | float) or not 0 <= radius <= _MAX_SIDE,
            f"the config has center_sample_radius={radius!r}, not a number of strides",
        ),
        (neck.get("add_extra_convs") == "on_lateral", "the config has add_extra_convs='on_lateral', not 'on_output'"),
        (
            bool(neck) and neck.get("relu_before_extra_convs", False) is False,
            "the config has no relu_before_extra_convs=True: the network lacks the ReLU between P6 and P7",
        ),
        (nms not in (None, "nms"), f"the config has the NMS {nms!r}; only 'nms' is supported"),
        (
            any(step.get("keep_ratio", "scale" not in step) is False for step in _resizes(config)),
            "the config has no keep_ratio=True: images are stretched, which is not supported",
        ),
    )
    return next((what for wrong, what in found if wrong), None)


def _radius(head: Mapping[str, Any]) -> Any:
    """The radius of center sampling in strides, as in the config; 0 without it."""
    return head.get("center_sample_radius", 1.5) if head.get("center_sampling", False) else 0.0


def _test_cfg(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return _nested(config, "model", "test_cfg") or _nested(config, "test_cfg")


def _thresholds(test: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that mean no limit, such as nms_pre=-1, are left out."""
    nms = _nested(test, "nms")
    values = {
        "candidates": test.get("nms_pre") or None,
        "score_threshold": test.get("score_thr"),
        "nms_iou": nms.get("iou_threshold", nms.get("iou_thr")),
        "max_detections": test.get("max_per_img") or None,
    }
    return {key: value for key, value in values.items() if isinstance(value, int | float) and value >= 0}


def _resizes(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of the test pipeline that resize. mmdetection 2 has them inside MultiScaleFlipAug, with its size."""
    datasets = _nested(config, "test_dataloader", "dataset"), _nested(config, "data", "test")
    pipelines = (*(dataset.get("pipeline") for dataset in datasets), config.get("test_pipeline"))
    steps = next(filter(None, map(_mappings, pipelines)), [])
    inner = [
        {"img_scale": step.get("img_scale"), **part} for step in steps for part in _mappings(step.get("transforms"))
    ]
    return [step for step in (*steps, *inner) if step.get("type") == "Resize"]


def _size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Shorter side of test images and limit of the longer one, in any order in the file; None if there is not one."""
    scales = [step.get("scale", step.get("img_scale")) for step in _resizes(config)]
    scale = scales[0] if len(scales) == 1 else None
    if isinstance(scale, list) and len(scale) == 1:
        scale = scale[0]
    if not isinstance(scale, list) or len(scale) != 2 or not all(isinstance(side, int) for side in scale):
        return None
    return (min(scale), max(scale)) if 0 < min(scale) <= max(scale) <= _MAX_SIDE else None


def _pixels(config: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """Return mean and std as RGB, and whether the network takes BGR input."""
    settings = _nested(config, "model", "data_preprocessor")
    rgb = settings.get("bgr_to_rgb", False)
    if not settings:
        settings = _nested(config, "img_norm_cfg")
        rgb = settings.get("to_rgb", True)
    mean, std = settings.get("mean"), settings.get("std")
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


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; none if it is something else."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
