"""A part of `make fuzz`, and checks that the fuzzer would notice failures."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fcos_cli.data import images
from tests.hostile.fuzz import MUTATIONS, fuzz, kinds, mutate, prepare


def test_500_cases(tmp_path: Path) -> None:
    done, failures = fuzz(500, seed=1, folder=tmp_path)
    assert [failure[:3] for failure in failures] == []
    assert sum(done.values()) == 500
    assert all(any(key.startswith(kind) for key in done) for kind in ("pictures", "coco", "yolo", "voc", "checkpoints"))


def test_the_undamaged_files_are_read(tmp_path: Path) -> None:
    for name, kind in kinds(tmp_path).items():
        path = prepare(tmp_path / name, kind.name)
        for content in kind.seeds:
            path.write_bytes(kind.wrap(content))
            assert kind.read(path) is not None


def test_a_case_depends_on_its_number_and_seed_only() -> None:
    seeds = [bytes(range(200)), b"x" * 50]
    first, again, other = (mutate(seeds, random.Random(text)) for text in ("0 7", "0 7", "0 8"))
    assert first == again != other


@pytest.mark.parametrize("mutation", list(MUTATIONS))
def test_mutations_change_a_file(mutation) -> None:
    data = bytes(range(256)) * 2
    changed = [bytes(mutation(bytearray(data), b"other", random.Random(seed))) for seed in range(5)]
    assert all(result != data for result in changed)


def test_an_exception_of_another_kind_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr(images, "_identify", broken)
    _, failures = fuzz(1, seed=0, folder=tmp_path)
    assert failures[0].reason == "IndexError: a bug"
