"""A copy of a model with other thresholds: the same network, the same other facts, in every format."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from fcos_cli.errors import ModelError, UsageError
from fcos_cli.model.artifact import load
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.promises import Promise, read_promises
from fcos_cli.runtime.pytorch import facts_of
from fcos_cli.runtime.rewrite import check_copy, write_with_thresholds
from tests.runtime.onnx_files import FACTS, assert_same, pictures, write_onnx, write_openvino
from tests.runtime.test_headers import engine_files

PROMISE = Promise(
    metric="recall",
    class_name='猫 & "dog" <x>',
    level=0.95,
    confidence=0.9,
    threshold=0.31,
    measured=0.97,
    images=300,
    boxes=900,
    most=8,
    method="a test",
    data={"name": "val", "split": "val", "sha256": "0a1b"},
    runs_on="onnxruntime in fp32",
)
NEW = {"threshold": 0.25, "class_thresholds": [0.31, 0.2, 0.125], "promises": [PROMISE]}


def weights(folder):
    from fcos_cli.model.artifact import save
    from tests.tiny import tiny_artifact

    save(folder / "m.safetensors", tiny_artifact())
    return folder / "m.safetensors"


def engine(folder):
    engine_files(folder / "m.engine", {"schema_version": 1, "facts": FACTS.to_metadata(), "engine": {"version": "10"}})
    return folder / "m.engine"


MAKERS = {
    "safetensors": weights,
    "onnx": lambda folder: write_onnx(folder / "m.onnx"),
    "openvino": lambda folder: write_openvino(folder / "m.xml"),
    "engine": engine,
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("in_place", [False, True])
def test_only_thresholds_and_promises_change(tmp_path, kind, in_place):
    source = MAKERS[kind](tmp_path)
    before, size = read_header(source), source.stat().st_size
    out = source if in_place else tmp_path / "new" / f"other{source.suffix}"
    write_with_thresholds(source, out, **NEW)
    after = read_header(out)
    assert (after.facts.threshold, after.facts.class_thresholds) == (0.25, (0.31, 0.2, 0.125))
    assert after.facts.promises == (PROMISE,)
    old, new = before.facts.to_metadata(), after.facts.to_metadata()
    assert {key for key in new if old.get(key) != new[key]} == {"thresholds", "promises"}
    assert (after.parameters, after.engine) == (before.parameters, before.engine)
    if not in_place:
        assert read_header(source) == before
        assert source.stat().st_size == size
    write_with_thresholds(out, out, threshold=0.5, class_thresholds=[0.5] * 3, promises=[])  # again: promises go
    again = read_header(out).facts
    assert (again.threshold, again.class_thresholds, again.promises) == (0.5, (0.5,) * 3, ())
    assert list(tmp_path.rglob("*.tmp")) == []


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_copy_detects_the_same(tmp_path, kind):
    source, out = MAKERS[kind](tmp_path), tmp_path / "copy"
    out = out.with_suffix(source.suffix)
    write_with_thresholds(source, out, **NEW)
    images = pictures(10, 200, 255)
    assert_same(open_detector(source)(images), open_detector(out)(images))


def test_other_readers_see_a_valid_onnx_file_with_the_same_graph(tmp_path):
    import onnx

    source, out = write_onnx(tmp_path / "m.onnx"), tmp_path / "new.onnx"
    write_with_thresholds(source, out, **NEW)
    old, new = onnx.load(source), onnx.load(out)
    onnx.checker.check_model(new)
    keys = [entry.key for entry in new.metadata_props]
    assert len(keys) == len(set(keys))
    assert new.graph == old.graph
    for model in (old, new):
        del model.metadata_props[:]
    assert new.SerializeToString() == old.SerializeToString()


def test_weights_stay_the_same_bytes(tmp_path):
    source, out = weights(tmp_path), tmp_path / "new.safetensors"
    write_with_thresholds(source, out, **NEW)
    old, new = load(source), load(out)
    assert old.weights.keys() == new.weights.keys()
    assert all(np.array_equal(old.weights[key].numpy(), new.weights[key].numpy()) for key in old.weights)
    assert new.class_thresholds == (0.31, 0.2, 0.125)
    assert facts_of(new).provenance == facts_of(old).provenance
    assert facts_of(new).promises == ()  # of this file, not of an export or of weights trained on from it


def test_an_engine_record_and_openvinos_other_file_come_along(tmp_path):
    source = engine(tmp_path)
    write_with_thresholds(source, tmp_path / "b.engine", **NEW)
    assert (tmp_path / "b.engine").read_bytes() == b"a plan"
    content = json.loads((tmp_path / "b.engine.json").read_text())
    assert (content["schema_version"], content["engine"]) == (1, {"version": "10"})
    network = write_openvino(tmp_path / "m.xml")
    write_with_thresholds(network, tmp_path / "b.xml", **NEW)
    assert (tmp_path / "b.bin").read_bytes() == network.with_suffix(".bin").read_bytes()


def test_a_file_that_is_no_model_is_refused_and_nothing_is_written(tmp_path):
    source = tmp_path / "m.onnx"
    shutil.copy(__file__, source)
    with pytest.raises(ModelError):
        write_with_thresholds(source, tmp_path / "b.onnx", **NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_copy_has_the_suffix_of_its_source(tmp_path):
    source = write_onnx(tmp_path / "m.onnx")
    check_copy(source, tmp_path / "b.onnx")
    with pytest.raises(UsageError) as caught:
        check_copy(source, tmp_path / "b.safetensors")
    assert str(caught.value.remedy).endswith("b.onnx")
    with pytest.raises(UsageError):
        check_copy(source, tmp_path)


@pytest.mark.parametrize(("kind", "content"), [("openvino", "<annotation/>"), ("onnx", "graph"), ("engine", "plan")])
def test_a_file_that_is_no_model_of_ours_is_not_replaced(tmp_path, kind, content):
    source = MAKERS[kind](tmp_path)
    other = tmp_path / f"0001{source.suffix}"
    other.write_text(content)
    with pytest.raises(UsageError, match="not an fcos model") as caught:
        check_copy(source, other)
    assert caught.value.where == str(other)
    foreign = write_onnx(tmp_path / "foreign.onnx", facts=None)
    with pytest.raises(UsageError, match="not an fcos model"):
        check_copy(write_onnx(tmp_path / "n.onnx"), foreign)


@pytest.mark.parametrize(("kind", "second"), [("openvino", "b.bin"), ("engine", "b.engine.json")])
def test_a_second_file_that_belongs_to_no_model_is_not_replaced(tmp_path, kind, second):
    source = MAKERS[kind](tmp_path)
    out = tmp_path / f"b{source.suffix}"
    check_copy(source, source)
    check_copy(source, out)
    (tmp_path / second).write_text("{}")
    with pytest.raises(UsageError, match="belongs to no model") as caught:
        check_copy(source, out)
    assert caught.value.where == str(tmp_path / second)
    (tmp_path / second).unlink()
    write_with_thresholds(source, out, **NEW)
    check_copy(source, out)  # an earlier copy


@pytest.mark.parametrize(
    "change",
    [
        {"level": 1.5},
        {"level": float("nan")},
        {"measured": "high"},
        {"images": -1},
        {"boxes": 2.5},
        {"most": True},
        {"class_name": 7},
        {"method": None},
        {"data": []},
    ],
)
def test_a_damaged_promise_is_an_error_of_the_file(tmp_path, change):
    source = write_onnx(tmp_path / "m.onnx")
    rows = [{**PROMISE.to_json(), **change}]
    with pytest.raises(ValueError, match="a promise has"):
        read_promises({"promises": json.dumps(rows)})
    import onnx

    model = onnx.load(source)
    onnx.helper.set_model_props(model, {**FACTS.to_metadata(), "promises": json.dumps(rows)})
    onnx.save(model, source)
    with pytest.raises(ModelError, match="facts cannot be used"):
        read_header(source)


@pytest.mark.parametrize("text", ["7", "{}", "[7]", "[{}]", '"x"', "[[]]"])
def test_what_is_no_list_of_promises_is_an_error(text):
    with pytest.raises((ValueError, TypeError, KeyError)):
        read_promises({"promises": text})


def test_promises_of_newer_versions_may_say_more():
    rows = [{**PROMISE.to_json(), "more": 1}]
    assert read_promises({"promises": json.dumps(rows)}) == (PROMISE,)
