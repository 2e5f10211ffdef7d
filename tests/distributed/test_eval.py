"""`fcos eval` by several processes: the numbers and files of one process, one message, the same exit code in all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fcos_cli.model.classes import ClassTable
from tests.distributed.launch import Ended, Launcher, Process, alone
from tests.runtime.onnx_files import FACTS, write_onnx

pytestmark = pytest.mark.slow


def quiet(ended: Ended) -> bool:
    return ended.out == ended.err == ""


def test_several_processes_give_the_numbers_of_one(
    launcher: Launcher, shapes: Path, model_file: Path, tmp_path: Path
) -> None:
    names = ClassTable(("circle", "square", "triangle"), (1, 2, 3))
    onnx = write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, classes=names))
    weights = ["eval", model_file, shapes, "--split", "all", "--batch", 3, "--json", "--save"]
    exported = ["eval", onnx, model_file, shapes, "--batch", 1, "--json", "--report"]

    def group(arguments: list[object], size: int, name: str) -> list[Process]:
        return [Process([*arguments, tmp_path / name])] * size

    launches = [
        alone(*group(weights, size, name))
        for size, name in ((1, "1.json"), (3, "3.json"))  # 16 images in 6 batches: 2 for each
    ] + [alone(*group(exported, size, name)) for size, name in ((1, "1.html"), (5, "5.html"))]  # 4 images
    one, three, one_pair, five_pair = launcher.run(*launches)
    for single, several in ((one, three), (one_pair, five_pair)):
        assert [ended.code for ended in (*single, *several)] == [0] * (1 + len(several)), several
        assert json.loads(several[0].out) == json.loads(single[0].out)
        assert all(quiet(ended) for ended in several[1:]), several
    assert json.loads(one[0].out)["images"] == 16
    assert (tmp_path / "3.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    assert len(json.loads((tmp_path / "1.json").read_text())) > 100
    assert (tmp_path / "5.html").is_file()


def test_what_ends_one_process_ends_all_with_one_message(
    launcher: Launcher, shapes: Path, model_file: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(shapes, damaged)
    last = max(damaged.glob("images/val*"))
    last.write_bytes(last.read_bytes()[:700])  # with its header
    command = ["eval", model_file, shapes, "--batch", 2]
    cases = {
        (6, "AP is"): [[*command, "--require", "AP=0.99"]] * 2,
        (3, "does not exist"): [command, ["eval", model_file, tmp_path / "gone"]],
        (3, f"{last.name} (rank 1 on"): [["eval", model_file, damaged, "--batch", 2, "--require", "AP=0"]] * 2,
        (2, "do not have the same data"): [command, [*command, "--limit", 3]],
        (2, "do not have the same number of images per batch"): [command, ["eval", model_file, shapes]],
    }
    ends = launcher.run(*[alone(*map(Process, commands)) for commands in cases.values()])
    for (code, words), (main, other) in zip(cases, ends, strict=True):
        assert (main.code, other.code) == (code, code), (main, other)
        assert main.err.count("error: ") == 1
        assert words in main.err
        assert quiet(other), other
