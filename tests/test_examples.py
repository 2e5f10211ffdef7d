"""examples/onnx_numpy.py, which docs/deployment.md shows, finds what `fcos predict` finds; so does Triton's client.

No script imports anything that the package does not have.
"""

import ast
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcos_cli.config import resolve
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.artifact import load, save
from fcos_cli.model.classes import ClassTable
from fcos_cli.resources import ASSETS
from fcos_cli.runtime.graph_io import CONVERGED, OUTPUTS
from fcos_cli.runtime.open import open_detector
from tests.cli_runner import Fcos
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.tiny import tiny_artifact

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "onnx_numpy.py"


def test_the_documentation_shows_the_script() -> None:
    _, _, code = SCRIPT.read_text(encoding="utf-8").partition("\n\n")
    assert f"```python\n{code}```" in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.fixture(params=["cat.jpg", "astronaut.jpg", "cut off at the bottom", "upright by EXIF"])
def photo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.endswith("jpg"):
        return ROOT / "examples" / "photos" / str(request.param)
    path = tmp_path / "photo.png"
    with Image.open(ROOT / "examples" / "photos" / "astronaut.jpg") as image:
        if request.param == "upright by EXIF":
            exif = Image.Exif()
            exif[0x0112] = 6  # to be turned by 90 degrees
            image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
        else:  # unclipped, the box ends in the padding
            image.crop((0, 0, 512, 400)).save(path)
    return path


def test_the_script_finds_the_same_boxes_as_predict(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], photo: Path
) -> None:
    (result,) = fcos("predict", photo, "--json").document["results"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(ASSETS / "default.onnx"), str(photo)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capfd.readouterr().out.splitlines()
    expected = result["detections"]
    assert len(lines) == len(expected) >= 1
    for line, found in zip(lines, expected, strict=True):
        name, score, box = line.split(maxsplit=2)
        assert (name, score) == (found["class"], f"{found['score']:.2f}")
        corners = [float(corner) for corner in box.strip("[]").split(", ")]
        assert corners == pytest.approx(found["box"], abs=0.051)  # printed with one decimal
        assert (np.array(corners) >= 0).all()
        assert corners[2] <= result["width"]
        assert corners[3] <= result["height"]


@pytest.mark.parametrize("file", sorted((ROOT / "examples" / "recipes").glob("*.toml")), ids=lambda file: file.stem)
def test_every_series_of_runs_has_settings_that_exist(file: Path) -> None:
    jobs = list(runpy.run_path(str(ROOT / "examples" / "recipes" / "compare.py"))["jobs"](file))
    assert len({job.name for job in jobs}) == len(jobs) > 1
    for job in jobs:
        resolve(environ={}, assignments=job.settings, network=job.network)


def test_the_table_of_networks_is_the_one_of_its_measurements() -> None:
    folder = ROOT / "examples" / "recipes"
    printed = runpy.run_path(str(folder / "networks.py"))["table"](folder / "networks.jsonl")
    assert printed in (folder / "README.md").read_text(encoding="utf-8")


def test_the_label_loop_takes_true_labels_for_the_most_doubtful_pictures_only(shapes: Path, tmp_path: Path) -> None:
    loop = runpy.run_path(str(ROOT / "examples" / "label_loop.py"))
    known = read_dataset(shapes, split="train").samples[:3]
    machine = [replace(sample, boxes=sample.boxes[:0]) for sample in known]
    truth = {sample.image: sample for sample in known}
    mixed = loop["correct"](machine, truth, [known[1].image])
    assert [sample is true for sample, true in zip(mixed, known, strict=True)] == [False, True, False]
    loop["write_coco"](tmp_path / "set/train.json", known, read_dataset(shapes, split="train").classes)
    back = read_dataset(tmp_path / "set/train.json", split="all").samples
    assert [sample.image for sample in back] == [sample.image.resolve() for sample in known]
    assert [sample.boxes.tolist() for sample in back] == [sample.boxes.tolist() for sample in known]


def test_the_label_loop_labels_again_after_an_interruption_only(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = runpy.run_path(str(ROOT / "examples" / "label_loop.py"))
    train_set = read_dataset(shapes, split="train")
    new, folder, calls = train_set.samples[:3], tmp_path / "labelled", list[list[str]]()

    def label(command: list[str], *, check: bool) -> None:
        assert check
        calls.append(command)
        folder.mkdir()  # fcos predict wants an empty folder
        rows = "".join(f"{sample.image.name},{sample.image.resolve()}\n" for sample in new)
        (folder / "review.csv").write_text(f"picture,source\n{rows}")
        if len(calls) == 1:
            raise KeyboardInterrupt
        loop["write_coco"](folder / "train.json", new, train_set.classes)

    monkeypatch.setattr("subprocess.run", label)
    with pytest.raises(KeyboardInterrupt):
        loop["label"](tmp_path, new, train_set.classes)
    for _ in range(2):
        _, doubtful = loop["label"](tmp_path, new, train_set.classes)
        assert doubtful == [sample.image for sample in new]
    assert len(calls) == 2


def test_averaged_weights_are_measured_and_know_where_they_come_from(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key, runs = "head.classification_head.cls_logits.bias", [tmp_path / "a", tmp_path / "b"]
    for run, value in zip(runs, (1.0, 4.0), strict=True):
        run.mkdir()
        provenance = {"data": {"name": "shapes"}, "cost": run.name}
        artifact = tiny_artifact(classes=read_dataset(shapes, split="val").classes, provenance=provenance)
        artifact.weights[key].fill_(value)
        save(run / "best.safetensors", artifact)
    out, script = tmp_path / "mean.safetensors", str(ROOT / "examples" / "average_weights.py")
    monkeypatch.setattr(sys, "argv", [script, str(out), str(shapes), *map(str, runs)])
    runpy.run_path(script, run_name="__main__")
    mean = load(out)
    assert mean.weights[key].tolist() == [2.5] * 3
    assert mean.provenance["data"] == {"name": "shapes"}
    assert "cost" not in mean.provenance  # it was not the same
    assert mean.provenance["average_of"] == ["a/best.safetensors", "b/best.safetensors"]
    assert f"average: AP {mean.provenance['metrics']['AP']:.4f}" in capfd.readouterr().err
    save(runs[1] / "best.safetensors", tiny_artifact(classes=ClassTable(("a", "b", "c"), (1, 2, 3))))
    with pytest.raises(SystemExit, match=r"differs from a/best\.safetensors in its classes\nwhere: b/best"):
        runpy.run_path(script, run_name="__main__")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path), str(shapes), *map(str, runs)])
    with pytest.raises(SystemExit, match="this is a folder, not a file"):  # before anything is measured
        runpy.run_path(script, run_name="__main__")


class TritonStandIn:
    """A client of a server that has one model, with at most two images per batch, and runs it in this process."""

    def __init__(self, url: str) -> None:
        self.url, self.batches = url, list[int]()
        self.detector = open_detector("small.onnx")

    def get_model_config(self, name: str) -> dict[str, Any]:
        if name != "small":
            raise ValueError("unknown model")
        images = {"name": "images", "data_type": "TYPE_UINT8", "dims": [3, -1, -1]}
        parameters = {"fcos": {"string_value": json.dumps(FACTS.to_metadata())}}
        outputs = [{"name": name} for name in (*OUTPUTS, CONVERGED)]
        return {"max_batch_size": 2, "input": [images], "output": outputs, "parameters": parameters}

    def infer(self, name: str, inputs: list[Any], outputs: list[str]) -> Any:
        (images,) = inputs
        assert (name, images.name, images.shape, images.type) == ("small", "images", images.data.shape, "UINT8")
        assert len(images.data) <= 2
        if self.url == "gone:8000":
            raise ConnectionResetError("the connection was closed")
        found = self.detector(images.data)._asdict()
        found["converged"] = np.full((len(images.data), 1), self.url != "stopped:8000")
        found["counts"] = found["counts"][:, None]  # as Triton answers
        return SimpleNamespace(as_numpy={name: found[name] for name in outputs}.get)


class TritonInput:
    def __init__(self, name: str, shape: tuple[int, ...], type: str) -> None:
        self.name, self.shape, self.type = name, shape, type

    def set_data_from_numpy(self, data: Any) -> None:
        self.data = data


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run examples/triton_client.py with the stand-in. Returns exit code, stdout and stderr."""
    package, http = ModuleType("tritonclient"), ModuleType("tritonclient.http")
    vars(http).update(InferenceServerClient=TritonStandIn, InferInput=TritonInput, InferRequestedOutput=str)
    vars(package).update(http=http)
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.http", http)
    client = runpy.run_path(str(ROOT / "examples" / "triton_client.py"))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["triton_client.py", *map(str, arguments)])
        capfd.readouterr()
        return (client["main"](), *capfd.readouterr())

    return run


def test_the_triton_client_finds_the_same_boxes_as_predict(fcos: Fcos, triton: Any) -> None:
    write_onnx(Path("small.onnx"))
    photos = [ROOT / "examples" / "photos" / name for name in ("cat.jpg", "astronaut.jpg", "cat.jpg")]
    known = fcos("predict", *photos, "gone.jpg", "--model", "small.onnx", "--jsonl").out
    assert known.count('"box"') == 8
    for batch in (1, 3):
        code, out, _ = triton(*photos, "gone.jpg", "--model", "small", "--batch", batch)
        assert (code, out) == (1, known)


def test_the_triton_client_says_which_server_lacks_which_model(fcos: Fcos, triton: Any) -> None:
    write_onnx(Path("small.onnx"))
    code, out, err = triton("cat.jpg", "--model", "large", "--url", "host:8000")
    assert (code, out) == (4, "")
    assert "unknown model" in err
    assert "host:8000 large" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--url", "gone:8000"], 1, "the server did not answer (the connection was closed)"),
        (["--url", "stopped:8000"], 1, "NMS did not converge"),
        (["--score", "0.01"], 2, "drops detections below 0.05, so --score 0.01 is too low"),
    ],
)
def test_what_the_triton_client_cannot_do_is_one_error(
    fcos: Fcos, triton: Any, arguments: list[str], code: int, words: str
) -> None:
    write_onnx(Path("small.onnx"))
    ended, _, err = triton(ROOT / "examples" / "photos" / "cat.jpg", "--model", "small", *arguments)
    assert ended == code
    assert err.startswith("error: ")
    assert words in err


def test_the_triton_client_takes_scores_from_0_to_1(triton: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        triton("cat.jpg", "--score", "1.5")
    assert ended.value.code == 2


def test_the_script_refuses_a_model_that_resizes_by_another_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = write_onnx(tmp_path / "m.onnx", facts=replace(FACTS, resize=ResizeRule("shortest", (64, 96))))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(model), "cat.jpg"])
    with pytest.raises(AssertionError, match="another rule"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize("script", sorted(ROOT.glob("examples/**/*.py")), ids=lambda path: path.name)
def test_the_names_that_scripts_import_exist(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fcos_cli"):
            names = [alias.name for alias in node.names]
            module = __import__(str(node.module), fromlist=names)  # of a package, it also imports modules named
            assert not [name for name in names if not hasattr(module, name)]
