"""Options and models that several commands share."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from fcos_cli.commands.options import parse_size
from tests.cli_runner import Fcos


@pytest.mark.parametrize(("text", "size"), [("320", (320, 320)), ("320x416", (320, 416)), ("64X32", (64, 32))])
def test_size_is_a_side_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("kind", ["missing", "broken", "other suffix", "empty folder"])
@pytest.mark.parametrize("command", ["predict", "eval", "info"])
def test_unusable_model_is_exit_code_4(
    fcos: Fcos, shapes: Path, image_folder: Path, tmp_path: Path, command: str, kind: str
) -> None:
    path = tmp_path / {"missing": "gone.safetensors", "other suffix": "m.pth", "empty folder": "d"}.get(
        kind, "m.safetensors"
    )
    if kind == "empty folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"no weights in here")
    lines = {
        "predict": ("predict", image_folder, "--model", path),
        "eval": ("eval", path, shapes),
        "info": ("info", path),
    }
    result = fcos(*lines[command])
    assert (result.code, result.out) == (4, "")
    assert str(path) in result.err


def test_missing_device_is_exit_code_2(fcos: Fcos, model_file: Path, image_folder: Path) -> None:
    result = fcos("predict", image_folder, "--model", model_file, "--device", "warp")
    assert result.code == 2
    assert "--device cpu" in result.err


def test_predict_and_eval_run_exported_models_with_any_backend(
    fcos: Fcos, exported: Path, shapes: Path, image_folder: Path
) -> None:
    for command in (("predict", image_folder, "--model", exported), ("eval", exported, shapes)):
        documents = [fcos(*command, "--json").document]
        if find_spec("openvino"):
            documents += [fcos(*command, "--json", "--backend", "openvino").document]
        assert documents[0]["model"] == str(exported)
        assert documents.count(documents[0]) == len(documents)


@pytest.mark.parametrize("flags", [("--backend", "pytorch"), ("--precision", "fp16"), ("--device", "cuda:7")])
def test_unsupported_backend_precision_or_device_is_exit_code_2(
    fcos: Fcos, exported: Path, shapes: Path, image_folder: Path, flags: tuple[str, str]
) -> None:
    for command in (("predict", image_folder, "--model", exported), ("eval", exported, shapes)):
        result = fcos(*command, *flags)
        assert (result.code, result.out) == (2, "")
        assert flags[1] in result.err
