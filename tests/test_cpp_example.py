"""examples/cpp, built with CMake: the programs find what `fcos verify` and `fcos predict` find."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcos_cli.resources import ASSETS
from tests.cli_runner import Fcos
from tests.parity.test_check import change_weight, changed, damage_expected
from tests.small_onnx import write_onnx

ROOT = Path(__file__).parent.parent
DEFAULT = ASSETS / "default.onnx"
PHOTO = ROOT / "examples" / "photos" / "astronaut.jpg"
HEADERS = (
    Path(os.environ.get("ONNXRUNTIME_ROOT", "/usr"), "include"),
    Path("/usr/include/onnxruntime"),
    ROOT / ".tools/onnxruntime/include",
)

pytestmark = pytest.mark.slow  # compiling takes about 10 seconds

Program = Callable[..., subprocess.CompletedProcess[str]]


def onnxruntime_root(folder: Path) -> Path:
    """A folder like that of an official archive: headers from where they are, the library of the Python package."""
    headers = next((path for path in HEADERS if (path / "onnxruntime_cxx_api.h").is_file()), None)
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    library = next(Path(spec.origin).parent.glob("capi/libonnxruntime.so.*"), None)
    if headers is None or library is None:
        pytest.skip("no headers or no library of ONNX Runtime (tests/example_tools.sh gets the headers)")
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(headers)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Run `verify` or `detect` of the example."""
    if not (shutil.which("cmake") and shutil.which("g++") and Path("/usr/include/nlohmann/json.hpp").is_file()):
        pytest.skip("no cmake, g++ or nlohmann/json (Debian: apt install cmake g++ nlohmann-json3-dev)")
    folder = tmp_path_factory.mktemp("cpp")
    root = onnxruntime_root(folder / "onnxruntime")
    settings = (f"-DONNXRUNTIME_ROOT={root}", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-Werror")
    for command in (
        ("-S", ROOT / "examples/cpp", "-B", folder / "build", *settings),
        ("--build", folder / "build", "--parallel", "2"),
    ):
        done = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "build" / f"fcos_{name}"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def vectors(fcos: Fcos, tmp_path: Path) -> Path:
    assert fcos("verify", DEFAULT, "--save", tmp_path / "vectors").code == 0
    return tmp_path / "vectors"


def test_the_program_finds_what_pytorch_found(program: Program, vectors: Path) -> None:
    done = program("verify", DEFAULT, vectors)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    table = {row[1]: [cell.strip() for cell in row[2:] if cell.strip()] for row in rows if len(row) > 3}
    assert table["matched"] == ["300 of 300", "100%"]
    assert float(table["largest box difference"][0].removesuffix("px")) < 0.01
    assert "the same as PyTorch on 3 images" in done.stdout


def test_other_weights_are_exit_code_5(program: Program, vectors: Path, tmp_path: Path) -> None:
    done = program("verify", changed(tmp_path / "x.onnx", change_weight), vectors)
    assert done.returncode == 5
    assert "x.onnx: this program gives different results from PyTorch" in done.stderr
    assert "failed: " in done.stderr


def test_a_wrong_expected_box_is_exit_code_5_and_named(
    program: Program, vectors: Path, tmp_path: Path, fcos: Fcos
) -> None:
    model = changed(tmp_path / "x.onnx", damage_expected)
    assert fcos("verify", model, "--save", vectors).code == 5
    done = program("verify", model, vectors)
    assert done.returncode == 5
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert json.loads((vectors / "vectors.json").read_text())["vectors"][1]["name"] in line


@pytest.mark.parametrize("change", ["class", "score", "missing", "additional"])
def test_every_kind_of_difference_is_seen(program: Program, vectors: Path, change: str) -> None:
    index = vectors / "vectors.json"
    content = json.loads(index.read_text())
    vector: dict[str, Any] = content["vectors"][2]
    if change == "class":
        vector["classes"][0] = (vector["classes"][0] + 1) % len(content["classes"])
    elif change == "score":
        vector["scores"][0] -= 0.001
    else:
        for key in ("boxes", "scores", "classes"):
            if change == "missing":
                del vector[key][0]
            else:
                vector[key].insert(0, [1.0, 1.0, 9.0, 9.0] if key == "boxes" else 1)
    index.write_text(json.dumps(content))
    done = program("verify", DEFAULT, vectors)
    assert done.returncode == 5
    assert f"failed: {vector['name']}: " in done.stderr


def test_without_a_sure_detection_there_is_nothing_to_judge_int8_by(program: Program, vectors: Path) -> None:
    index = vectors / "vectors.json"
    content = json.loads(index.read_text())
    content["tolerance"] |= {"sure": 0.9999, "max_px": None, "max_score": None, "matched": 0.8}
    index.write_text(json.dumps(content))
    done = program("verify", DEFAULT, vectors)
    assert done.returncode == 5
    assert "failed: no detection of 0.9999 or more on both sides: nothing to judge" in done.stderr


def test_files_that_cannot_be_used_are_exit_code_4_and_named(program: Program, vectors: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(DEFAULT.read_bytes()[:100_000])
    missing = tmp_path / "missing.onnx"
    small = write_onnx(tmp_path / "small.onnx")
    for model, folder, name in (
        (missing, vectors, "missing.onnx"),
        (truncated, vectors, "truncated.onnx"),
        (DEFAULT, tmp_path / "nowhere", "vectors.json"),
        (small, vectors, "vectors.json: it is of another model"),
    ):
        done = program("verify", model, folder)
        assert (done.returncode, done.stdout) == (4, ""), name
        assert done.stderr.startswith("error: ")
        assert name in done.stderr
    (vectors / "0.raw").write_bytes(b"123")
    done = program("verify", DEFAULT, vectors)
    assert done.returncode == 4
    assert "3 bytes" in done.stderr
    assert program("verify").returncode == 2


def test_the_program_finds_what_predict_finds(program: Program, tmp_path: Path, fcos: Fcos) -> None:
    photo = tmp_path / "photo.ppm"
    with Image.open(PHOTO) as image:
        image.crop((0, 0, 512, 401)).save(photo)
    (result,) = fcos("predict", photo, "--json").document["results"]
    done = program("detect", DEFAULT, photo)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(result["detections"]) == 1
    name, score, box = done.stdout.split(maxsplit=2)
    assert (name, score) == (result["detections"][0]["class"], f"{result['detections'][0]['score']:.2f}")
    assert json.loads(box) == pytest.approx(result["detections"][0]["box"], abs=0.051)  # printed with one decimal
    assert program("detect", DEFAULT, PHOTO).returncode == 1  # a JPEG
