"""The proof can fail: each of the classic mistakes of an export is noticed, and by the layer that should notice it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fcos_cli.export.graph as graph
from fcos_cli.export.onnx import finalize, trace, write
from fcos_cli.export.openvino import write_openvino
from fcos_cli.export.options import ExportOptions
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.decode import decode
from fcos_cli.parity.prove import prove
from fcos_cli.parity.subgraphs import ExportedModel, OnnxModel, OpenVinoModel
from fcos_cli.parity.verdict import Parity
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.graph_io import OUTPUTS
from fcos_cli.runtime.pytorch import facts_of
from tests.parity.fakes import MUTATIONS, FakeCuts, Mutant, Mutation, seeing_artifact

pytestmark = pytest.mark.slow

SIZE = (160, 192)
NOTHING = Mutation("")


def blind(artifact: Artifact) -> Artifact:
    """The same network, so sure of nothing that it finds nothing in any picture."""
    key = "head.classification_head.cls_logits.bias"
    return replace(artifact, weights={**artifact.weights, key: artifact.weights[key] - 100})


def failing(parity: Parity) -> set[str]:
    """The layers that failed, but for the last, in which everything shows."""
    return {name for name, layer in (("raw", parity.raw), ("post", parity.post)) if layer.failures}


def proved(artifact: Artifact, cuts: ExportedModel) -> Parity:
    return prove(artifact, cuts, facts_of(artifact), pictures=demo_photos(), sizes=[SIZE], batches=[cuts.shape[0] or 2])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_noticed_where_it_was_made(name: str, seed: int) -> None:
    artifact = seeing_artifact(seed=seed)
    parity = proved(artifact, FakeCuts(Mutant.of(artifact, MUTATIONS[name]).build()))
    assert failing(parity) == {MUTATIONS[name].layer}
    assert parity.end.failures


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_noticed_even_where_the_model_finds_nothing(name: str) -> None:
    artifact = blind(seeing_artifact())
    parity = proved(artifact, FakeCuts(Mutant.of(artifact, MUTATIONS[name]).build()))
    assert failing(parity) == {MUTATIONS[name].layer}
    assert not parity.end.failures


@pytest.mark.parametrize("seed", range(3))
def test_without_a_mistake_nothing_is_noticed(seed: int) -> None:
    artifact = seeing_artifact(seed=seed)
    assert proved(artifact, FakeCuts(Mutant.of(artifact, NOTHING).build())).failures == []


def exported(artifact: Artifact, mutation: Mutation, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ONNX file of the mutated network, traced with everything else as it should be."""
    mutant, options = Mutant.of(artifact, mutation), ExportOptions(size=SIZE, batch=2)
    monkeypatch.setattr(graph, "decode", lambda *given, **how: mutation.candidates(decode(*given, **how)))
    facts = replace(facts_of(artifact), nms_iou=mutant.build().config.nms_iou)
    write(finalize(trace(mutant, facts, options), outputs=OUTPUTS), folder / "mutant.onnx", facts_of(artifact))
    return folder / "mutant.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nothing", *MUTATIONS])
def test_a_mistake_in_a_real_file_is_noticed_in_every_runtime(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    artifact, mutation = seeing_artifact(), MUTATIONS.get(name, NOTHING)
    path = exported(artifact, mutation, tmp_path, monkeypatch)
    write_openvino(path, path.with_suffix(".xml"), facts_of(artifact))
    for cuts in (OnnxModel(path), OpenVinoModel(path.with_suffix(".xml"))):
        parity = proved(artifact, cuts)
        assert (parity.raw.skipped, parity.post.skipped) == (None, None)
        # OpenVINO leaves a cast to half and back out: what it computes then is right, and so is the verdict
        undone = name == "decode in half precision" and cuts.backend == "openvino"
        expected = set() if undone else {mutation.layer} - {""}
        assert failing(parity) == expected, parity.failures
        assert parity.passed == (not expected)
