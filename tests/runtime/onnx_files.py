"""Tiny exported models for tests: no network in them, but inputs, outputs and facts as `fcos export` writes them.

What they find can be read off a picture: the red of its first pixel, r, gives class 0 over the whole input with score
r / 256, class 1 over the upper left quarter with half of that, class 2 over the lower right quarter with half of that.
All of it is exact in float32. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections

FACTS = Facts(ClassTable(("a", "b", "c"), (10, 20, 30)), ResizeRule("letterbox", (32, 48)), threshold=0.125)
PLACES = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
SHARES = np.array([1, 0.5, 0.25], np.float32)

GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
tiny (uint8[{batch}, 3, {height}, {width}] images) => ({outputs})
<int64[1] one = {{1}}, int64[3] first = {{0, 0, 0}}, int64[3] last = {{2, 1, 1}}, int64[3] axes = {{1, 2, 3}},
 int64[4] xyxy = {{3, 2, 3, 2}}, int64[3] index = {{0, 1, 2}}, int64 none = {{-1}}, int64[2] pair = {{-1, 2}},
 int64[1] two = {{2}}, float zero = {{0}}, float full = {{256}}, float limit = {{{limit}}}, float long_chain = {{200}},
 float[3] shares = {{{shares}}}, float[3, 4] places = {{{places}}}>
{{
    corner = Slice (images, first, last, axes)
    colours = Cast <to = 1> (corner)
    flat = Reshape (colours, pair)
    red, green = Split <axis = 1> (flat)
    chance = Div (red, full)
    all_scores = Mul (chance, shares)
    keep = GreaterOrEqual (all_scores, limit)
    scores = Where (keep, all_scores, zero)
    classes = Where (keep, index, none)
    kept = Cast <to = 7> (keep)
    counts = ReduceSum <keepdims = 0> (kept, one)
    shape = Shape (images)
    sides = Gather (shape, xyxy)
    pixels = Cast <to = 1> (sides)
    all_boxes = Mul (places, pixels)
    mask = Cast <to = 1> (keep)
    column = Unsqueeze (mask, two)
    boxes = Mul (column, all_boxes)
    {rest}
}}
"""


def write_onnx(
    path: Path,
    *,
    facts: Facts | None = FACTS,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    converged: bool = False,
    leave_out: Sequence[str] = (),
) -> Path:
    """An `.onnx` with these facts (None: without any) and limits. size: (height, width).

    converged: give it that output; it is False for pictures whose first pixel has a green of 200 or more. leave_out:
    keys of its metadata to drop.
    """
    import onnx

    of = batch or "batch"
    outputs = [f"float[{of}, 3, 4] boxes", f"float[{of}, 3] scores", f"int64[{of}, 3] classes", f"int64[{of}] counts"]
    model = onnx.parser.parse_model(
        GRAPH.format(
            batch=of,
            height=size[0] if size else "height",
            width=size[1] if size else "width",
            outputs=", ".join([*outputs, *[f"bool[{of}] converged"] * converged]),
            limit=(facts or FACTS).score_threshold,
            shares=", ".join(map(str, SHARES)),
            places=", ".join(map(str, PLACES.flatten())),
            rest="short = Less (green, long_chain)\n    converged = Squeeze (short, one)" if converged else "",
        )
    )
    if facts is not None:
        metadata = {key: value for key, value in facts.to_metadata().items() if key not in leave_out}
        onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_openvino(path: Path, *, facts: Facts | None = FACTS, **limits) -> Path:
    """The same as an OpenVINO model: `path` is the .xml, its .bin lies beside it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(write_onnx(path.with_suffix(".from.onnx"), facts=facts, **limits))
    if facts is not None:
        model.set_rt_info(facts.to_metadata(), "fcos")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def pictures(*reds: int, size: tuple[int, int] = (32, 48), green: int = 0) -> np.ndarray:
    """uint8 [B, 3, height, width]: one picture per red, whose whole area has that red and this green."""
    images = np.zeros((len(reds), 3, *size), np.uint8)
    images[:, 0] = np.array(reds, np.uint8)[:, None, None]
    images[:, 1] = green
    return images


def answer(images: np.ndarray, *, score: float = FACTS.score_threshold) -> RawDetections:
    """What such a model answers, by numpy."""
    scores = images[:, 0, 0, 0, None] / np.float32(256) * SHARES
    keep = scores >= np.float32(score)
    height, width = images.shape[2:]
    boxes = PLACES * np.array([width, height, width, height], np.float32)
    return RawDetections(
        np.where(keep[..., None], boxes, np.float32(0)),
        np.where(keep, scores, np.float32(0)),
        np.where(keep, np.arange(3), -1),
        keep.sum(1),
    )


def assert_same(one: RawDetections, other: RawDetections) -> None:
    """To the last bit, types included."""
    for name in RawDetections._fields:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)
