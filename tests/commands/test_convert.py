"""fcos convert, and the model name `coco` in other commands."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fcos_cli.convert.run import convert
from fcos_cli.convert.zoo import cache_folder
from fcos_cli.model.artifact import load, save
from fcos_cli.runtime.open import open_detector
from tests.cli_runner import Fcos
from tests.convert.foreign import ours, pth, shapes_of, theirs


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cached file of `coco`: torchvision's network, untrained and narrow."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = cache_folder() / "fcos_resnet50_fpn_coco-99b0c9b7.safetensors"
    save(path, convert(pth(tmp_path / "coco.pth", ours(classes=91))).artifact)
    return path


def test_default_output_is_next_to_the_checkpoint(fcos: Fcos, tmp_path: Path) -> None:
    file = pth(tmp_path / "theirs.pth", {"model": theirs("fcos", ours(scales=True)), "iteration": 9})
    code, out, err = fcos("convert", file, "--preset", "fcos-imprv")
    assert (code, out) == (0, "")
    assert "preset fcos-imprv" in err
    assert "dropped: iteration" in err
    assert f"wrote {tmp_path / 'theirs.safetensors'}" in err
    assert len(load(tmp_path / "theirs.safetensors").classes) == 80
    code, _, _ = fcos("info", tmp_path / "theirs.safetensors")
    assert code == 0


def test_an_existing_file_is_replaced_only_if_it_is_named(fcos: Fcos, tmp_path: Path) -> None:
    checkpoint = pth(tmp_path / "model.pth", ours(classes=91))
    (tmp_path / "model.safetensors").write_text("mine")
    refused = fcos("convert", checkpoint)
    assert (refused.code, (tmp_path / "model.safetensors").read_text()) == (2, "mine")
    assert "--out" in refused.err
    assert fcos("convert", checkpoint, "--out", tmp_path / "model.safetensors").code == 0


def test_converted_model_can_be_opened(fcos: Fcos, tmp_path: Path) -> None:
    file = pth(tmp_path / "theirs.pth", theirs("detectron2", ours()))
    code, out, _ = fcos("convert", file, "--out", tmp_path / "m.safetensors", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["artifact"] == str(tmp_path / "m.safetensors")
    assert (document["schema_version"], document["from"], document["preset"]) == (1, "detectron2", "detectron2")
    assert any("input channels reversed from BGR to RGB" in note for note in document["notes"])
    assert open_detector(tmp_path / "m.safetensors").facts.classes.names[0] == "person"


def test_foreign_safetensors_file_is_not_overwritten(fcos: Fcos, tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    save_file(theirs("detectron2", ours()), file)
    before = file.read_bytes()
    assert fcos("convert", file)[0] == 0
    assert file.read_bytes() == before
    assert (tmp_path / "theirs-fcos.safetensors").is_file()
    code, _, err = fcos("convert", file, "--out", file)
    assert code == 2
    assert "--out and FILE are the same file" in err
    for command in (("predict", "x.jpg", "--model", file), ("info", file)):
        code, _, err = fcos(*command)
        assert code == 4
        assert "fcos convert FILE" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--preset fcos-v1: trained with"),
        (("--preset", "adelaidet"), 2, "is not a preset of"),
        (("--from", "mmdet", "--preset", "mmdet-base"), 2, "contradicts the file"),
        (("--preset", "fcos-v1", "--out", "x.pth"), 2, "must end in .safetensors"),
        (("--to", "onnx"), 2, "unknown --to 'onnx'"),
        (("--to", "torchvision", "--preset", "fcos-v1"), 2, "cannot be combined with --to"),
        (("--to", "torchvision", "--size", "600"), 2, "cannot be combined with --to"),
        (("--preset", "fcos-v1", "--size", "600,1000"), 2, "shorter x longer side"),
        (("--preset", "fcos-v1", "--classes", "gone.txt"), 2, "class names cannot be read"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], code: int, message: str, fcos: Fcos, tmp_path: Path) -> None:
    file = pth(tmp_path / "theirs.pth", theirs("fcos", shapes_of(scales=True)))
    found, out, err = fcos("convert", file, *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert not (tmp_path / "theirs.safetensors").exists()


def test_the_input_size_can_be_given(fcos: Fcos, tmp_path: Path) -> None:
    file = pth(tmp_path / "theirs.pth", theirs("detectron2", ours()))
    for text, size in (("600x1000", [600, 1000]), ("1000x600", [600, 1000]), ("640", [640, 640])):
        code, _, err = fcos("convert", file, "--size", text, "--out", "x.safetensors")
        assert code == 0
        assert f"shorter side {size[0]} px, longer at most {size[1]} (from --size)" in err
        assert load(Path("x.safetensors")).geometry["size"] == size


@pytest.mark.parametrize("folder", ["", ".", "..", "run"])
def test_a_folder_is_no_checkpoint(folder: str, fcos: Fcos) -> None:
    Path("run").mkdir()
    code, out, err = fcos("convert", folder)
    assert (code, out) == (4, "")
    assert "error: this is a folder, not a checkpoint" in err
    assert "name the checkpoint file in it" in err


@pytest.mark.parametrize("name", ["m.onnx", "m.pth"])
def test_only_weights_are_converted_back(name: str, fcos: Fcos) -> None:
    Path(name).write_bytes(b"x")
    result = fcos("convert", name, "--to", "torchvision", "--out", "x.pth")
    assert (result.code, "--to needs a .safetensors file" in result.err) == (2, True)


def test_a_model_of_this_folder_can_be_converted_back(fcos: Fcos) -> None:
    assert fcos("convert", ".", "--to", "torchvision").code == 4  # there is none


def test_incomplete_checkpoint_is_exit_code_4_and_lists_all_tensors(fcos: Fcos, tmp_path: Path) -> None:
    state = theirs("detectron2", shapes_of())
    gone = [key for key in state if key.startswith("head.bbox_")]
    file = pth(tmp_path / "theirs.pth", {key: value for key, value in state.items() if key not in gone})
    code, _, err = fcos("convert", file)
    assert code == 4
    lines = err.splitlines()
    assert [line.strip() for line in lines[1:3]] == [f"where: {file}", f"missing ({len(gone)}):"]
    assert [line.split()[0] for line in lines[3:-1]] == sorted(gone)
    assert lines[-1].startswith("  do:    ")


def test_round_trip_to_torchvision(fcos: Fcos, tmp_path: Path) -> None:
    state = shapes_of(classes=91, backbone="resnet50", channels=256, convs=4)
    file = pth(tmp_path / "theirs.pth", state)
    assert fcos("convert", file)[0] == 0
    code, out, _ = fcos("convert", tmp_path / "theirs.safetensors", "--to", "torchvision", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["artifact"] == str(tmp_path / "theirs-torchvision.pth")
    assert document["call"].endswith("num_classes=91)")
    again = torch.load(tmp_path / "theirs-torchvision.pth", weights_only=True)
    assert {key for key in again if not key.endswith("num_batches_tracked")} == state.keys()


def test_other_network_cannot_be_converted_to_torchvision(fcos: Fcos, model_file: Path) -> None:
    code, _, err = fcos("convert", model_file, "--to", "torchvision", "--out", "x.pth")
    assert code == 4
    assert "backbone is test_efficientnet" in err
    assert not Path("x.pth").exists()


def test_coco_is_accepted_as_a_model_name(fcos: Fcos, coco: Path, shapes: Path) -> None:
    image = next(path for path in sorted(shapes.rglob("*")) if path.suffix in (".jpg", ".png"))
    code, out, _ = fcos("predict", image, "--weights", "coco", "--score", "0.2", "--json")
    assert code == 0
    assert json.loads(out)["model"] == "coco"
    code, out, _ = fcos("info", "coco", "--json")
    assert code == 0
    assert json.loads(out)["file"] == str(coco)


def test_training_from_coco_uses_its_network(fcos: Fcos, coco: Path, shapes: Path) -> None:
    code, _, err = fcos("train", shapes, "--init", "coco", "--size", "64", "--set", "model.candidates=77", "--dry-run")
    assert code == 0
    lines = {line.split()[0]: line.split() for line in err.splitlines() if line.strip().startswith("model.")}
    assert lines["model.backbone"][1:] == ["resnet18", "init"]
    assert lines["model.conventions.stride_rule"][1:] == ["padded", "init"]
    assert lines["model.candidates"][1] == "77"
    assert "--set" in " ".join(lines["model.candidates"])
