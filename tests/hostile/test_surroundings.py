"""A full disk, a folder that cannot be written, no network, no home, no colours, a narrow terminal, LANG=C."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fcos_cli.predict.mark import REPORT_MARK
from fcos_cli.resources import demo_photos
from tests.cli_runner import Fcos
from tests.convert.foreign import ours, pth
from tests.hostile.contract import contents

PHOTO = demo_photos()[1]
TRAIN = "train {data} --set model.backbone=test_efficientnet --init random --size 64 --epochs 1 --no-export"
OLD = b'{"schema_version": 1, "model": "old"}\n'


@contextmanager
def full(folder: Path, *, room: int = 0) -> Iterator[bool]:
    """A disk with this many bytes left, in pages of 4096. Yields whether messages can still be written elsewhere.

    It is a tmpfs, or, where it cannot be mounted, the limit of the process for the size of a file.
    """
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            (folder / "old.json").write_bytes(OLD)
            (folder / "old.html").write_bytes(f"<!doctype html>{REPORT_MARK}".encode())
            left = os.statvfs(folder)
            (folder / "rest").write_bytes(bytes(left.f_bavail * left.f_frsize - room))
            yield True
        finally:
            os.chdir("/")
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    (folder / "old.json").write_bytes(OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WRITES = [
    "predict {photo} --viz --out {full}/out",
    "predict {photo} --crops --score 0.05 --out {full}/out",
    "predict {photo} --save {full}/old.json",
    "predict {photo} --save {full}/new.jsonl",
    "predict {photo} --save {full}/new.csv",
    "predict {photo} --save {full}/new.coco.json",
    "predict {photo} --model {model} --explain --out {full}/out",
    "eval {model} {data} --report {full}/old.html",
    "eval {model} {data} --save {full}/new.json",
    pytest.param("export {model} --no-verify --out {full}/x.onnx", marks=pytest.mark.slow),
    "convert {checkpoint} --out {full}/x.safetensors",
    pytest.param("bench {model} --rounds 2 --out {full}/x.png", marks=pytest.mark.slow),
    pytest.param(TRAIN + " --out {full}/run", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of torchvision's network, untrained and narrow."""
    return pth(tmp_path_factory.mktemp("checkpoint") / "theirs.pth", ours(classes=91))


@pytest.mark.parametrize("line", WRITES)
def test_a_full_disk(tmp_path: Path, shapes: Path, model_file: Path, checkpoint: Path, fcos: Fcos, line: str) -> None:
    """One error, exit code 1, and what was there stays."""
    (tmp_path / "full").mkdir()
    files = {"photo": PHOTO, "model": model_file, "data": shapes, "checkpoint": checkpoint}
    words = line.format(full=tmp_path / "full", **files).split()
    with full(tmp_path / "full") as told:
        before = contents(tmp_path / "full")
        result = fcos(*words)
        after = contents(tmp_path / "full")
        assert {path: after.get(path) for path in before} == before
        assert not [path for path in after if path.endswith(".tmp")]
        assert not [path for path in after if path not in before and Path(path).is_file()]
    assert result.code == 1
    assert "Traceback" not in result.err
    if told:
        assert result.err.count("error: ") == 1
        assert "No space left" in result.err


READS = [
    "predict {photo} --json",
    "predict {photo} --jsonl",
    "predict {photo} --viz --out {out}",
    "predict {photo} --model {model} --explain --out {out}",
    "info default",
    "info small --json",
    "eval {model} {data} --json",
    "doctor {data} --json",
    "convert {checkpoint} --out {out}.safetensors",
    pytest.param("bench {model} --rounds 2 --json", marks=pytest.mark.slow),
    pytest.param("export {model} --no-verify --out {out}.onnx", marks=pytest.mark.slow),
    pytest.param(TRAIN + " --out {out}", marks=pytest.mark.slow),
    "--help",
]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fcos: Fcos) -> Fcos:
    """`fcos` in a folder that cannot be written, if one can be made, without HOME, colours or room."""
    for name in ("HOME", "XDG_CACHE_HOME", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("LANG", "C"), ("LC_ALL", "C"), ("NO_COLOR", "1"), ("COLUMNS", "40")):
        monkeypatch.setenv(name, value)
    return fcos


@pytest.mark.parametrize("line", READS)
def test_bare_surroundings(
    tmp_path: Path, shapes: Path, model_file: Path, checkpoint: Path, bare: Fcos, line: str
) -> None:
    (tmp_path / "closed").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", str(tmp_path / "closed")]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted:
        (tmp_path / "closed").chmod(0o555)
    os.chdir(tmp_path / "closed")
    try:
        files = {"photo": PHOTO, "model": model_file, "data": shapes, "checkpoint": checkpoint}
        result = bare(*line.format(out=tmp_path / "out", **files).split())
        assert contents(tmp_path / "closed") == {}
    finally:
        os.chdir(tmp_path)
        if mounted:
            subprocess.run(["umount", "--lazy", str(tmp_path / "closed")], check=True)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out + result.err


def test_results_that_cannot_be_written_are_one_error(tmp_path: Path, bare: Fcos) -> None:
    (tmp_path / "file").write_text("old", encoding="utf-8")
    result = bare("predict", PHOTO, "--viz", "--out", tmp_path / "file" / "out")
    assert result.code == 2
    assert result.err.count("error: ") == 1
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"


@pytest.mark.slow
def test_a_fresh_process_in_the_c_locale(tmp_path: Path) -> None:
    """Python chooses the encoding of its streams when it starts. The file's name is not ASCII."""
    photo = tmp_path / "größe-犬.jpg"
    photo.write_bytes(PHOTO.read_bytes())
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "LANG": "C", "LC_ALL": "C", "NO_COLOR": "1", "COLUMNS": "40", "PYTHONCOERCECLOCALE": "0"}
    line = [sys.executable, "-X", "utf8=0", "-m", "fcos_cli", "predict", str(photo), "--json"]
    done = subprocess.run(
        line, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
