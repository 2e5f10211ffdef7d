"""The parity check detects typical export faults, each in the layer where it arises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fcos_cli.export.graph as graph
from fcos_cli.export.onnx import finalize, trace, write
from fcos_cli.export.openvino import write_openvino
from fcos_cli.export.options import ExportOptions
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.config import STRIDES
from fcos_cli.model.decode import decode
from fcos_cli.parity.prove import prove
from fcos_cli.parity.subgraphs import ExportedModel, OnnxModel, OpenVinoModel
from fcos_cli.parity.verdict import Parity
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.graph_io import OUTPUTS
from fcos_cli.runtime.pytorch import facts_of
from tests.parity.fakes import MUTATIONS, FakeExport, Mutant, Mutation, detecting_artifact

pytestmark = pytest.mark.slow

SIZE = (160, 192)
NOTHING = Mutation("")


def with_no_detections(artifact: Artifact) -> Artifact:
    """The same network with such low class logits that it finds nothing in any image."""
    key = "head.classification_head.cls_logits.bias"
    return replace(artifact, weights={**artifact.weights, key: artifact.weights[key] - 100})


def failing(parity: Parity) -> set[str]:
    """The layers that failed, apart from end to end, where every fault shows."""
    return {name for name, layer in (("raw", parity.raw), ("post", parity.post)) if layer.failures}


def check(artifact: Artifact, model: ExportedModel) -> Parity:
    batches = [model.shape[0] or 2]
    return prove(artifact, model, facts_of(artifact), pictures=demo_photos(), sizes=[SIZE], batches=batches)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_is_detected_in_its_layer(name: str, seed: int) -> None:
    artifact = detecting_artifact(seed=seed)
    parity = check(artifact, FakeExport(Mutant.of(artifact, MUTATIONS[name]).build()))
    assert failing(parity) == {MUTATIONS[name].layer}
    assert parity.end.failures


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_is_detected_even_if_the_model_finds_nothing(name: str) -> None:
    artifact = with_no_detections(detecting_artifact())
    parity = check(artifact, FakeExport(Mutant.of(artifact, MUTATIONS[name]).build()))
    assert failing(parity) == {MUTATIONS[name].layer}
    assert not parity.end.failures


@pytest.mark.parametrize("seed", range(3))
def test_an_intact_model_passes(seed: int) -> None:
    artifact = detecting_artifact(seed=seed)
    assert check(artifact, FakeExport(Mutant.of(artifact, NOTHING).build())).failures == []


def exported(artifact: Artifact, mutation: Mutation, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Export an ONNX file of the mutated network, with everything else intact."""
    mutant, options = Mutant.of(artifact, mutation), ExportOptions(size=SIZE, batch=2)
    monkeypatch.setattr(graph, "decode", lambda *args, **kwargs: mutation.candidates(decode(*args, **kwargs)))
    facts = replace(facts_of(artifact), nms_iou=mutant.build().config.nms_iou)
    write(finalize(trace(mutant, facts, options), outputs=OUTPUTS), folder / "mutant.onnx", facts_of(artifact))
    return folder / "mutant.onnx"


@pytest.mark.parametrize("name", ["nothing", *MUTATIONS])
def test_a_fault_in_an_exported_file_is_detected_in_every_runtime(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    artifact, mutation = detecting_artifact(), MUTATIONS.get(name, NOTHING)
    path = exported(artifact, mutation, tmp_path, monkeypatch)
    write_openvino(path, path.with_suffix(".xml"), facts_of(artifact))
    for model in (OnnxModel(path, strides=STRIDES), OpenVinoModel(path.with_suffix(".xml"), strides=STRIDES)):
        parity = check(artifact, model)
        assert (parity.raw.skipped, parity.post.skipped) == (None, None)
        # OpenVINO removes a cast to half and back, so its result is right
        undone = name == "decode in half precision" and model.backend == "openvino"
        expected = set() if undone else {mutation.layer} - {""}
        assert failing(parity) == expected, parity.failures
        assert parity.passed == (not expected)
