"""Reading checkpoints: state dicts are found in what trainers save, and no code in a file is run."""

import argparse
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fcos_cli.convert.read import Checkpoint, read_checkpoint
from fcos_cli.errors import ModelError, UsageError
from tests.convert.foreign import pth


class WritesAFile:
    """Creates the file when its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


WEIGHTS = OrderedDict(a=torch.arange(3.0), b=torch.ones(2, 2))


@pytest.mark.parametrize(
    ("content", "dropped"),
    [
        (WEIGHTS, ()),
        ({"model": WEIGHTS, "iteration": 90000, "optimizer": {"lr": 0.1}}, ("iteration", "optimizer")),
        ({"state_dict": WEIGHTS, "meta": {"epoch": 12}}, ()),
        ({"model": {f"module.{key}": value for key, value in WEIGHTS.items()}, "scheduler": {}}, ("scheduler",)),
        ({**WEIGHTS, "__version__": 3}, ("__version__",)),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_is_found_in_what_trainers_save(
    content: Any, dropped: tuple[str, ...], zipped: bool, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x.pth")
    assert found.weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in WEIGHTS.items())
    assert found.dropped == dropped


@pytest.mark.parametrize("name", ["best.onnx", "best.xml", "best.engine"])
def test_an_exported_model_is_told_from_a_damaged_checkpoint(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="this is an exported model, not a checkpoint"):
        read_checkpoint(tmp_path / name)


def test_prefix_is_kept_unless_all_names_have_it(tmp_path: Path) -> None:
    found = read_checkpoint(pth(tmp_path / "x.pth", {"module.a": torch.ones(1), "b": torch.ones(1)}))
    assert found.weights.keys() == {"module.a", "b"}


def test_mmdetection_meta_is_kept(tmp_path: Path) -> None:
    found = read_checkpoint(pth(tmp_path / "x.pth", {"state_dict": WEIGHTS, "meta": {"CLASSES": ("a", "b")}}))
    assert found.meta == {"CLASSES": ("a", "b")}


def test_foreign_safetensors_are_read(tmp_path: Path) -> None:
    save_file(dict(WEIGHTS), tmp_path / "x.safetensors")
    assert read_checkpoint(tmp_path / "x.safetensors").weights.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_never_runs(zipped: bool, tmp_path: Path) -> None:
    trap = tmp_path / "it-ran"
    file = tmp_path / "x.pth"
    torch.save({"model": WEIGHTS, "extra": WritesAFile(trap)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"would run code: \w+\.system") as caught:
        read_checkpoint(file)
    assert not trap.exists()
    assert caught.value.where == str(file)
    assert "torch.save(" in str(caught.value.remedy)
    torch.load(file, weights_only=False)  # the trap is a real one
    assert trap.exists()


def test_code_in_a_plain_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    trap = tmp_path / "it-ran"
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": WritesAFile(trap)}))
    with pytest.raises(ModelError, match="a pickle not written by torch"):
        read_checkpoint(tmp_path / "x.pkl")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"model": WEIGHTS, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"model": {"a": np.ones(3)}}, "numpy"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
)
def test_unsafe_import_is_named_and_the_remedy_works(content: Any, named: str, tmp_path: Path) -> None:
    file = pth(tmp_path / "x.pth", content)
    with pytest.raises(ModelError, match=named) as caught:
        read_checkpoint(file)
    if isinstance(content, dict):
        assert follow(caught.value, tmp_path).weights.keys() == content["model"].keys()


def follow(error: ModelError, folder: Path) -> Checkpoint:
    """Run the code in the error's remedy, and read what it saves."""
    lines = [line.strip() for line in str(error.remedy).splitlines()[1:]]
    exec("\n".join(lines).replace("'tensors.pth'", repr(str(folder / "tensors.pth"))), {})
    return read_checkpoint(folder / "tensors.pth")


def test_remedy_for_mmdetection_3_keeps_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files hold a log of the training in a class of mmengine."""
    module = ModuleType("mmengine.logging.history_buffer")
    log = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = log  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    stated = {"cfg": "model = dict()", "dataset_meta": {"classes": ("a", "b")}, "mmdet_version": "3.3.0"}
    content = {"meta": {**stated, "epoch": 12, "log": log()}, "message_hub": {"loss": log()}, "state_dict": WEIGHTS}
    file = pth(tmp_path / "x.pth", content)
    with pytest.raises(ModelError, match=r"would run code: mmengine\.logging\.history_buffer\.HistoryBuffer") as caught:
        read_checkpoint(file)
    found = follow(caught.value, tmp_path)
    assert (found.weights.keys(), found.meta) == (WEIGHTS.keys(), stated)


def test_remedy_for_a_plain_pickle_works(tmp_path: Path) -> None:
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": {"a": np.ones(3)}, "__author__": "me"}))
    with pytest.raises(ModelError, match="would run code") as caught:
        read_checkpoint(tmp_path / "zoo.pkl")
    assert follow(caught.value, tmp_path).weights["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off", b"\x00" * 64])
def test_files_that_are_not_checkpoints_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="not a readable checkpoint") as caught:
        read_checkpoint(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = pth(tmp_path / "whole.pth", {"a": torch.ones(1000)}).read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "half.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {}}, torch.ones(2)])
def test_files_without_named_tensors_are_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"(not a|no) dict of tensors"):
        read_checkpoint(pth(tmp_path / "x.pth", content))


def test_fcos_model_is_refused(model_file: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        read_checkpoint(model_file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_checkpoint(tmp_path / "gone.pth")
