"""ONNX export, compared with PyTorch over a grid of shapes, batch sizes, class counts and kinds of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fcos_cli.export.onnx import finalize, store_in_half, trace, write
from fcos_cli.export.openvino import write_openvino
from fcos_cli.export.options import ExportOptions
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import FINE_STRIDES, STRIDES
from fcos_cli.model.conventions import Conventions
from fcos_cli.parity.prove import prove
from fcos_cli.parity.subgraphs import ExportedModel, OnnxModel, OpenVinoModel
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.graph_io import output_names, raw_names
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.pytorch import facts_of
from tests.tiny import tiny_artifact, tiny_model

pytestmark = pytest.mark.slow

SIZES = [(256, 320), (224, 224), (384, 160), (192, 480), (160, 160)]
"""The traced size, another one, tall, wide, and the smallest."""

HEAD = "head.classification_head.cls_logits"


def artifact_of(classes: int, **changes: Any) -> Artifact:
    """A tiny network whose scores range from 0.01 to nearly 1."""
    model = tiny_model(classes=classes, **changes)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(classes)
        model.head.classification_head.cls_logits.weight.normal_(0, 0.4, generator=generator)
        model.head.classification_head.cls_logits.bias.fill_(-2.0)
        model.head.regression_head.bbox_reg.weight.normal_(0, 0.2, generator=generator)
        model.head.regression_head.bbox_reg.bias.fill_(1.5)
    table = ClassTable.from_names([f"class {i}" for i in range(classes)])
    return replace(tiny_artifact(), weights=model.state_dict(), config=model.config, classes=table)


@pytest.fixture(scope="module", params=[1, 3, 80], ids="{} classes".format)
def exported(request: pytest.FixtureRequest) -> tuple[Artifact, Facts, onnx.ModelProto]:
    artifact = artifact_of(request.param)
    options = ExportOptions()
    facts = options.apply(facts_of(artifact))
    return artifact, facts, finalize(trace(artifact, facts, options), outputs=output_names("op"))


def altered(artifact: Artifact, proto: onnx.ModelProto, case: str) -> tuple[Artifact, onnx.ModelProto]:
    """Change the weights of both alike: some detections, none, more than the limit, or all scores equal."""
    weights = dict(artifact.weights)
    if case == "none":
        weights[f"{HEAD}.bias"] = torch.full_like(weights[f"{HEAD}.bias"], -60.0)
    elif case == "many":
        weights[f"{HEAD}.bias"] = torch.full_like(weights[f"{HEAD}.bias"], 1.0)
    elif case == "equal":
        for key in (f"{HEAD}.weight", f"{HEAD}.bias", "head.regression_head.bbox_ctrness.weight"):
            weights[key] = torch.zeros_like(weights[key])
    changed = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in changed.graph.initializer:
        key = tensor.name.removeprefix("model.")
        if key in weights and not torch.equal(weights[key], artifact.weights[key]):
            tensor.CopyFrom(numpy_helper.from_array(weights[key].numpy(), tensor.name))
    return replace(artifact, weights=weights), changed


def open_exported(backend: str, path: Path, facts: Facts) -> ExportedModel:
    if backend == "onnxruntime":
        return OnnxModel(path, strides=facts.model["strides"])
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    xml = path.with_suffix(".xml")
    write_openvino(path, xml, facts)
    return OpenVinoModel(xml, strides=facts.model["strides"])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("case", ["some", "none", "many", "equal"])
def test_the_file_matches_pytorch(
    exported: tuple[Artifact, Facts, onnx.ModelProto], case: str, backend: str, tmp_path: Path
) -> None:
    artifact, facts, proto = exported
    artifact, changed = altered(artifact, proto, case)
    write(changed, tmp_path / "model.onnx", facts)
    exported_model = open_exported(backend, tmp_path / "model.onnx", facts)
    parity = prove(artifact, exported_model, facts, pictures=demo_photos(), sizes=SIZES, batches=[1, 2, 5])
    assert parity.passed, parity.failures
    counts = [row.match.reference for row in parity.end.rows]
    assert max(counts) == {"none": 0, "some": max(counts), "many": 100, "equal": 100}[case]
    assert max(counts) > 0 or case == "none"
    assert {(row.size, row.batch) for row in parity.raw.rows} >= {(SIZES[0], 5), (SIZES[4], 1)}


def test_inputs_and_outputs_of_the_file(exported: tuple[Artifact, Facts, onnx.ModelProto]) -> None:
    _, facts, proto = exported
    (images,) = proto.graph.input
    dimensions = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, images.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert dimensions == ["batch", 3, "height", "width"]
    shapes = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in proto.graph.output}
    limit = facts.max_detections
    assert shapes == {
        "boxes": ["batch", limit, 4],
        "scores": ["batch", limit],
        "classes": ["batch", limit],
        "counts": ["batch"],
    }
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    assert all(node.domain == "" for node in proto.graph.node)
    assert {name for node in proto.graph.node for name in node.output} >= set(raw_names(STRIDES))


def test_the_file_contains_no_paths_of_this_machine(
    exported: tuple[Artifact, Facts, onnx.ModelProto],
) -> None:
    content = exported[2].SerializeToString()
    assert str(Path(__file__).resolve().parent.parent.parent).encode() not in content
    assert b"site-packages" not in content


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(size=(160, 192), batch=1),
        ExportOptions(size=(160, 192), nms="tensor"),
        ExportOptions(batch=2, precision="fp16", max_detections=7, score=0.2, iou=0.4),
        ExportOptions(size=(64, 96), batch=1, max_detections=7),
    ],
    ids=["fixed", "fixed size, tensor NMS", "fixed batch, half, other limits", "smaller than a dynamic one"],
)
def test_fixed_shapes_and_other_limits_pass_parity(options: ExportOptions, tmp_path: Path) -> None:
    artifact = artifact_of(3)
    facts = options.apply(facts_of(artifact))
    proto = finalize(trace(artifact, facts, options), outputs=output_names(options.nms))
    dimensions = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    height, width = options.size or ("height", "width")
    assert dimensions == [options.batch or "batch", 3, height, width]
    write(proto, tmp_path / "model.onnx", facts)
    exported_model = OnnxModel(tmp_path / "model.onnx", strides=STRIDES)
    parity = prove(artifact, exported_model, facts, pictures=demo_photos())
    assert parity.passed, parity.failures
    assert max(row.match.reference for row in parity.end.rows) == facts.max_detections
    assert ("NonMaxSuppression" in {node.op_type for node in proto.graph.node}) == (options.nms == "op")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_model_with_strides_from_4_passes_parity_in_every_layer(backend: str, tmp_path: Path) -> None:
    artifact, options = artifact_of(3, strides=FINE_STRIDES), ExportOptions()
    facts = options.apply(facts_of(artifact))
    write(finalize(trace(artifact, facts, options), outputs=output_names("op")), tmp_path / "model.onnx", facts)
    exported_model = open_exported(backend, tmp_path / "model.onnx", facts)
    parity = prove(artifact, exported_model, facts, pictures=demo_photos(), sizes=SIZES[:1], batches=[2])
    assert parity.passed, parity.failures
    assert (parity.raw.skipped, parity.post.skipped) == (None, None)
    assert {row.output for row in parity.raw.rows} == set(raw_names(FINE_STRIDES))
    assert max(row.match.reference for row in parity.end.rows) > 0
    assert read_header(tmp_path / "model.onnx").facts.model["strides"] == list(FINE_STRIDES)


def test_a_separable_tower_passes_parity(tmp_path: Path) -> None:
    options, artifact = ExportOptions(), artifact_of(3, tower="separable", convs=2)
    facts = options.apply(facts_of(artifact))
    write(finalize(trace(artifact, facts, options), outputs=output_names("op")), tmp_path / "model.onnx", facts)
    parity = prove(
        artifact,
        OnnxModel(tmp_path / "model.onnx", strides=STRIDES),
        facts,
        pictures=demo_photos(),
        sizes=SIZES[:1],
        batches=[2],
    )
    assert parity.passed, parity.failures


def test_learned_scales_stay_in_float32_in_half_precision(tmp_path: Path) -> None:
    artifact, options = artifact_of(3, conventions=Conventions(scales=True)), ExportOptions(precision="fp16")
    scales = {f"head.regression_head.scales.{n}": torch.tensor([1 + (n + 1) / 3000]) for n in range(5)}
    artifact = replace(artifact, weights={**artifact.weights, **scales})
    facts = options.apply(facts_of(artifact))
    proto = finalize(trace(artifact, facts, options), outputs=output_names("op"))
    stored = {t.name.removeprefix("model."): numpy_helper.to_array(t) for t in proto.graph.initializer}
    for name, scale in scales.items():
        assert scale.half().float() != scale
        assert (stored[name].dtype, stored[name].tolist()) == (np.float32, scale.tolist())
    write(proto, tmp_path / "model.onnx", facts)
    exported_model = OnnxModel(tmp_path / "model.onnx", strides=STRIDES)
    parity = prove(artifact, exported_model, facts, pictures=demo_photos(), sizes=SIZES[:1], batches=[2])
    assert parity.passed, parity.failures


def test_only_weights_that_fp16_represents_exactly_are_stored_in_fp16(
    exported: tuple[Artifact, Facts, onnx.ModelProto], tmp_path: Path
) -> None:
    artifact, facts, proto = exported
    rounded = {k: v.half().float() if v.dim() > 1 else v for k, v in artifact.weights.items()}
    changed = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in changed.graph.initializer:
        if tensor.name.removeprefix("model.") in rounded and len(tensor.dims) > 1:
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    full_size = len(changed.SerializeToString())
    unchanged = store_in_half(onnx.ModelProto.FromString(proto.SerializeToString()))
    assert not any(t.name.endswith("weight_half") for t in unchanged.graph.initializer)
    write(store_in_half(changed), tmp_path / "model.onnx", facts)
    assert (tmp_path / "model.onnx").stat().st_size < 0.75 * full_size
    exported_model = OnnxModel(tmp_path / "model.onnx", strides=STRIDES)
    halved = replace(artifact, weights=rounded)
    parity = prove(halved, exported_model, facts, pictures=demo_photos(), sizes=SIZES[:1], batches=[2])
    assert parity.passed, parity.failures
