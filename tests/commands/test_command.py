"""What every command does before its work: refuse names that no file can have, and outputs that cannot be written."""

from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import typer.main

from fcos_cli.cli import app
from fcos_cli.commands.command import NAMES
from tests.cli_runner import Fcos, created_files

LONG = "x" * 300
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # typer's own Group


def file_parameters() -> list[tuple[str, list[str], str]]:
    """(label, command line, id) of every parameter of every command that names a file."""
    rows = []
    for information in app.registered_commands:
        assert information.callback is not None
        name = information.name or information.callback.__name__
        command, types = COMMANDS[name], get_type_hints(information.callback)
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        for parameter in (p for p in command.params if p.name in types):
            if "Path" not in str(types[parameter.name]) and parameter.name not in NAMES:
                continue
            option = parameter.opts[0]
            if option.startswith("-"):
                line = [name, *("x" for argument in arguments if argument.required), option, LONG]
            else:
                line, option = [name, LONG], parameter.metavar
            rows.append((option, line, f"{name} {option}"))
    return rows


ROWS = file_parameters()


def test_the_table_has_the_arguments_that_people_use() -> None:
    ids = {row[2] for row in ROWS}
    assert ids >= {
        *("train DATA", "train --config", "train --out", "train --name", "train --init", "train --resume"),
        *("eval MODEL [MODEL] DATA", "eval --report", "eval --save"),
        *("predict SOURCE", "predict --model", "predict --save", "predict --out", "predict --targets"),
        *("export MODEL", "export --out", "export --data", "convert FILE", "convert --out", "convert --classes"),
        *("bench MODEL", "bench --images", "bench --data", "bench --out", "info MODEL"),
    }


@pytest.mark.parametrize(("label", "line"), [row[:2] for row in ROWS], ids=[row[2] for row in ROWS])
def test_a_name_that_no_file_can_have_is_exit_code_2(fcos: Fcos, label: str, line: list[str]) -> None:
    result = fcos(*line)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[:2] == [
        "error: this name has 300 bytes, and a file name can have at most 255",
        f"  where: {label} {'x' * 40}…",
    ]
    assert created_files() == []


def test_a_long_path_of_short_names_and_long_settings_are_told_apart(fcos: Fcos) -> None:
    assert "this path has 5119 bytes" in fcos("info", "/".join(["x" * 9] * 512)).err
    result = fcos("train", "nowhere", "--set", f"train.lr={'0' * 300}")
    assert "bytes" not in result.err


@pytest.mark.parametrize("line", [("train", "--set", f"data.path={LONG}"), ("train", "--set", f"train.init={LONG}")])
def test_a_setting_that_no_file_can_have_as_its_name_is_exit_code_2(fcos: Fcos, line: tuple[str, ...]) -> None:
    result = fcos(*line)
    assert (result.code, result.out) == (2, "")
    assert "no file can have a name this long" in result.err
    assert created_files() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_offers_debug(fcos: Fcos, name: str) -> None:
    assert "--debug" in fcos(name, "--help").out


OUTPUTS = (
    "predict IMAGES --viz --json --out OUT",
    "predict IMAGES --crops --out OUT",
    "predict IMAGES --json --save OUT.json",
    "predict IMAGES --model MODEL --explain --out OUT",
    "predict --targets DATA --model MODEL --out OUT",
    "eval MODEL DATA --report OUT.html",
    "eval MODEL DATA --json --save OUT.json",
    "eval MODEL DATA --promise recall=0.9 --out OUT.safetensors",
    "export MODEL --out OUT.onnx",
    "export MODEL --format openvino --out OUT.xml",
    "convert MODEL --out OUT.safetensors",
    "convert MODEL --to torchvision --out OUT.pth",
    "bench MODEL --out OUT.png --rounds 1",
    "train DATA --out OUT",
    "train DATA --name ../../file/OUT",
    "train --demo --out OUT",
)


@pytest.mark.parametrize("line", OUTPUTS)
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    fcos: Fcos, monkeypatch: pytest.MonkeyPatch, shapes: Path, image_folder: Path, model_file: Path, line: str
) -> None:
    """The output lies below a file. No model is opened and no data is read."""
    for module in ("bench.run", "export.run", "export.vectors", "parity.check", "train.start"):
        import_module(f"fcos_cli.{module}")  # imported later, they would keep what is patched here

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    for work in (
        "fcos_cli.runtime.open.open_detector",
        "fcos_cli.export.run.load",
        "fcos_cli.convert.run.convert",
        "fcos_cli.model.artifact.load",
        "fcos_cli.train.recipe.plan.make_plan",
        "fcos_cli.train.start.demo_data",
        "fcos_cli.explain.run.plan_explanation",
    ):
        monkeypatch.setattr(work, opened)
    Path("file").write_text("somebody's")
    names = {"IMAGES": image_folder, "DATA": shapes, "MODEL": model_file}
    words = [str(names.get(word, word)).replace("OUT", "file/out") for word in line.split()]
    result = fcos(*words)
    assert (result.code, result.out) == (2, "")
    assert f"{Path.cwd() / 'file'} is not a folder" in result.err
    assert [path.name for path in created_files()] == ["file"]
    assert Path("file").read_text() == "somebody's"


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (("train", "data", "--name", ""), "--name"),
        (("train", "data", "--out", "", "--epochs", "3"), "--out"),
        (("train", "data", "--out="), "--out"),
        (("export", "default", "--out="), "--out"),
    ],
)
def test_an_empty_value_is_not_the_current_folder(fcos: Fcos, line: tuple[str, ...], where: str) -> None:
    result = fcos(*line)
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[:2] == ["error: an option has an empty value", f"  where: {where}"]
    assert created_files() == []


def test_a_setting_can_be_empty(fcos: Fcos) -> None:
    assert "no data to train on" in fcos("train", "--set=data.path=").err
