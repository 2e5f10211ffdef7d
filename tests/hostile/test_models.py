"""Model files that are wrong on purpose: what opens them, and what reads only their facts."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcos_cli.convert.read import read_checkpoint
from fcos_cli.errors import DataError, ModelError
from fcos_cli.parity.verify import vectors_of, verify
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import open_detector
from fcos_cli.train.checkpoint import PREVIOUS, STATE, read_state
from tests.cli_runner import Fcos
from tests.hostile.contract import READ, Case, names, outcome
from tests.hostile.model_cases import CHECKPOINTS, EXPORTS, SAFETENSORS, VECTORS, Payload, archive

MODELS = [*SAFETENSORS, *CHECKPOINTS, *EXPORTS, *VECTORS]
OPENED = [*SAFETENSORS, *EXPORTS]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload would make its file in the folder that `outcome` watches."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", OPENED, ids=names(OPENED))
def test_opening(tmp_path: Path, case: Case) -> None:
    path = case.make(tmp_path)

    def use() -> Any:
        detector = open_detector(path, threads=1)
        return detector(np.zeros((1, 3, 64, 64), np.uint8))

    outcome(use, kind=ModelError, expect=case.expect, folder=tmp_path)


@pytest.mark.parametrize("case", OPENED, ids=names(OPENED))
def test_facts(tmp_path: Path, case: Case, fcos: Fcos) -> None:
    """`fcos info` reads no weights, so it may show a file that cannot run; its numbers are usable."""
    (tmp_path / "model").mkdir()
    path = case.make(tmp_path / "model")
    header = outcome(lambda: attempt(path), kind=ModelError, expect=READ, folder=tmp_path)
    assert header[0].where if isinstance(header, list) else len(header.facts.classes) > 0
    result = fcos("info", path, "--json")
    assert result.code == (4 if isinstance(header, list) else 0)
    assert "Traceback" not in result.err
    if result.code == 0:
        assert result.document["classes"]


def attempt(path: Path) -> Any:
    """The header, or [the error]."""
    try:
        return read_header(path)
    except ModelError as error:
        return [error]


@pytest.mark.parametrize("case", VECTORS, ids=names(VECTORS))
def test_test_vectors(tmp_path: Path, case: Case) -> None:
    path = case.make(tmp_path)

    def use() -> Any:
        detector = open_detector(path, threads=1)
        return verify(detector, vectors_of(detector.facts, where=path))

    outcome(use, kind=ModelError, expect=case.expect, folder=tmp_path)


@pytest.mark.parametrize("case", CHECKPOINTS, ids=names(CHECKPOINTS))
def test_checkpoints(tmp_path: Path, case: Case) -> None:
    path = case.make(tmp_path)
    outcome(lambda: read_checkpoint(path), kind=ModelError, expect=case.expect, folder=tmp_path)


@pytest.mark.parametrize("content", [pickle.dumps(Payload(), 2), archive(pickle.dumps(Payload(), 2)), b"", b"junk"])
def test_a_state_runs_nothing(tmp_path: Path, content: bytes) -> None:
    for name in (STATE, PREVIOUS):
        (tmp_path / name).write_bytes(content)
    outcome(
        lambda: read_state(tmp_path, data_hash="x"),
        kind=DataError,
        expect="saved state cannot be read",
        folder=tmp_path,
    )


@pytest.mark.parametrize("content", [[], 3, {}, {"version": 2}, {"version": "2"}, {"version": 2, "data_hash": "x"}])
def test_a_state_of_another_content(tmp_path: Path, content: Any) -> None:
    stream = io.BytesIO()
    torch.save(content, stream)
    (tmp_path / STATE).write_bytes(stream.getvalue())
    outcome(lambda: read_state(tmp_path, data_hash="x"), kind=DataError, expect="state", folder=tmp_path)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_by_command(tmp_path: Path, fcos: Fcos, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Payload(), 2))
    result = fcos("convert", tmp_path / name, "--out", tmp_path / "out.safetensors")
    assert result.code == 4
    assert "Traceback" not in result.err
    assert result.err.count("error: ") == 1
    assert not list(tmp_path.rglob("ran"))
    assert not (tmp_path / "out.safetensors").exists()
