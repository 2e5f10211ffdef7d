"""The small installation: every command that needs no torch works without it, and the others say what to install."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fcos_cli import extras
from fcos_cli.errors import MissingExtra
from fcos_cli.extras import PACKAGES, RAY_PACKAGES, require_ray, require_train
from fcos_cli.resources import ASSETS, demo_photos
from tests.cli_runner import CliResult

SITECUSTOMIZE = f"""
import sys
from importlib.machinery import PathFinder


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {PACKAGES!r} else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
"""Python imports this module at its start. It hides the packages of the extra, also in processes that `fcos` starts."""

RUN_LINES = """
import contextlib, io, json, shlex, sys
from fcos_cli.cli import main
results = {}
for line in json.load(sys.stdin):
    sys.argv, code = ["fcos", *shlex.split(line)], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    results[line] = [code, out.getvalue(), err.getvalue()]
json.dump(results, sys.stdout)
"""

BASE = (
    "predict astronaut.jpg cat.jpg --viz --crops --tile 300 --save found.csv",
    "eval default two_photos.json --report one.html --json --evaluator pycocotools",
    "eval default default two_photos.json --report two.html",
    "bench --rounds 1 --data two_photos.json --json",
    "verify default --json",
    "info default",
    "info run",
    "info nano",
    "info default --speed",
    "doctor two_photos.json --size 320",
    "predict astronaut.jpg cat.jpg --label labelme --out labelled",
    "doctor labelled",
    "predict cat.jpg --model exported/best.onnx",
)

NEEDS_TRAIN = {
    "train two_photos.json": "fcos train",
    "train two_photos.json --dry-run": "fcos train",
    "export default": "fcos export",
    "convert weights.pth": "fcos convert",
    "predict cat.jpg --explain": "--explain",
    "predict cat.jpg --targets two_photos.json": "--targets",
    "predict cat.jpg --backend pytorch": "--backend pytorch",
    "predict cat.jpg --model exported --backend pytorch": "--backend pytorch",
    "predict cat.jpg --model coco": "the model `coco`",
    "eval run two_photos.json": "a .safetensors file",
    "predict cat.jpg --model exported": "a .safetensors file",
    "predict cat.jpg --model exported/best.safetensors": "a .safetensors file",
    "info nano --speed": "--speed of a network by name",
}
"""Command line → what its error message says needs the extra."""

INSTEAD = {
    "predict cat.jpg --backend pytorch": ", or omit --backend",
    "predict cat.jpg --model exported": ", or use exported/best.onnx",
    "predict cat.jpg --model exported/best.safetensors": ", or use exported/best.onnx",
    "predict cat.jpg --model exported --backend pytorch": ", or use exported/best.onnx without --backend",
}
"""Command line → what the error message names besides the installation."""

COMMAND = 'pip install "fcos-cli[train]"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two photos with annotations, the weights of a run in `run`, and the same with their export in `exported`."""
    folder = tmp_path_factory.mktemp("small")
    for file in (*demo_photos(), Path(__file__).with_name("two_photos.json")):
        shutil.copy(file, folder)
    for run in (folder / "run", folder / "exported"):
        run.mkdir()
        shutil.copy(ASSETS / "default.safetensors", run / "best.safetensors")
    shutil.copy(ASSETS / "default.onnx", run / "best.onnx")
    return folder


def python(folder: Path, code: str, *, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in `folder`, in a process that cannot import the packages of the extra."""
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text(SITECUSTOMIZE)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FCOS_")}
    environment = {**kept, "PYTHONPATH": os.pathsep.join((str(hidden), str(ASSETS.parent.parent)))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, CliResult]:
    """What each command line of BASE and NEEDS_TRAIN gives. One process runs them all."""
    process = python(folder, RUN_LINES, given=json.dumps([*BASE, *NEEDS_TRAIN]))
    assert process.returncode == 0, process.stderr
    return {line: CliResult(*result) for line, result in json.loads(process.stdout).items()}


def test_the_packages_of_the_extra_are_hidden_from_these_processes(folder: Path) -> None:
    code = "for name in {!r}:\n try: __import__(name)\n except ModuleNotFoundError as error: print(error.name)"
    assert python(folder, code.format(PACKAGES)).stdout.split() == list(PACKAGES)


@pytest.mark.parametrize("line", BASE)
def test_a_command_that_needs_no_torch_works(results: dict[str, CliResult], line: str) -> None:
    assert results[line].code == 0, results[line].err


def test_its_results_are_complete(results: dict[str, CliResult], folder: Path) -> None:
    predict, evaluation, _, bench, *_ = (results[line] for line in BASE)
    assert "person" in predict.err
    assert "cat" in (folder / "found.csv").read_text()
    assert (folder / "predictions/cat.jpg").is_file()
    assert evaluation.document["metrics"]["AP50"] == pytest.approx(1)
    assert "person" in (folder / "one.html").read_text()
    assert (folder / "two.html").is_file()
    (row,) = bench.document["rows"]
    assert row["backend"] == "onnxruntime"
    assert row["AP"] > 0


@pytest.mark.parametrize(("line", "subject"), NEEDS_TRAIN.items())
def test_what_needs_the_extra_is_exit_code_2_and_one_line_to_type(
    results: dict[str, CliResult], line: str, subject: str
) -> None:
    code, out, err = results[line]
    assert (code, out) == (2, "")
    assert f"{subject} needs the extra `train`" in err
    assert f"do:    {COMMAND}{INSTEAD.get(line, '')}\n" in err


def test_a_row_of_a_benchmark_that_needs_the_extra_has_the_reason(folder: Path) -> None:
    process = python(folder, RUN_LINES, given=json.dumps(["bench default --backend pytorch --rounds 1 --json"]))
    ((code, out, _),) = json.loads(process.stdout).values()
    (row,) = json.loads(out)["rows"]
    assert code == 2
    assert COMMAND in row["skipped"]


def test_only_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_train("fcos train")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(MissingExtra) as caught:
        require_train("fcos train")
    assert caught.value.what == "fcos train needs the extra `train`, of which this installation lacks onnx"


def test_clusters_need_their_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ray" in RAY_PACKAGES
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in RAY_PACKAGES[:2] else object())
    with pytest.raises(MissingExtra) as caught:
        require_ray("--engine ray")
    assert caught.value.what == "--engine ray needs the extra `ray`, of which this installation lacks ray, pyarrow"
    assert caught.value.remedy == 'pip install "fcos-cli[ray]"'
    require_train("fcos train")
