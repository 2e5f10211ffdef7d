"""The house has twelve floors and imports run down only; the ground floor is light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fcos_cli

ROOT = Path(fcos_cli.__file__).parent
FLOORS = (
    {"cli", "__main__", "commands"},
    {"train"},
    {"bench", "explain", "export"},
    {"parity"},
    {"evaluate"},
    {"predict"},
    {"runtime"},
    {"data", "config"},
    {"convert"},
    {"model"},
    {"console", "allocator", "atomic", "hardware", "resources"},
    {"errors"},
)
HEAVY = ("torch", "torchvision", "timm", "numpy", "PIL", "onnx", "onnxruntime", "tensorrt", "pydantic", "openvino")
FILES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    """0 = top. The package itself holds `__version__` and names that load on first use: anybody may import it."""
    parts = module.split(".")
    if len(parts) == 1:
        return len(FLOORS)
    return next(number for number, rooms in enumerate(FLOORS) if parts[1] in rooms)


def imports_of(code: str, package: str) -> Iterator[tuple[str, int]]:
    """(module, line) of every import statement in a file of `package`, wherever it stands."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:  # `from fcos_cli.data import coco` imports a module too
                deeper = f"{base}.{alias.name}"
                yield (deeper if _is_module(deeper) else base), node.lineno


def _is_module(name: str) -> bool:
    path = ROOT.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_every_module_has_a_floor() -> None:
    rooms = {name_of(file).split(".")[1] for file in FILES if "." in name_of(file)}
    assert rooms <= set().union(*FLOORS)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_run_down_only(file: Path) -> None:
    if file == ROOT / "__init__.py":
        return  # the lazy public face: its imports are for type checkers
    here, package = floor_of(name_of(file)), ".".join(file.relative_to(ROOT.parent).parts[:-1])
    arrows = [
        f"{file.relative_to(ROOT.parent)}:{line} imports {module}"
        for module, line in imports_of(file.read_text(encoding="utf-8"), package)
        if module.split(".")[0] == "fcos_cli" and floor_of(module) < here
    ]
    assert arrows == []


def test_the_walk_sees_imports_inside_functions_and_relative_ones() -> None:
    code = (
        "def f():\n    from fcos_cli.train import loop\n    from ..predict import pipeline\n    import fcos_cli.cli\n"
    )
    found = [module for module, _ in imports_of(code + "from . import coco\n", "fcos_cli.data")]
    assert sorted(found) == ["fcos_cli.cli", "fcos_cli.data.coco", "fcos_cli.predict.pipeline", "fcos_cli.train.loop"]
    assert [floor_of(module) for module in sorted(found)] == [0, 7, 5, 1]


@pytest.mark.parametrize("file", [f for f in FILES if f.name == "__init__.py"], ids=name_of)
def test_a_package_imports_nothing_heavy(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    executed = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in executed]
    assert set(modules) <= {"__future__", "typing"}


def loaded_after(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` a fresh process has in sys.modules after running `code`."""
    report = f"\nimport sys\nprint(*(n for n in {names!r} if n in sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stderr.split()


def ask(*lines: str) -> str:
    """Code that runs `fcos` with each of these command lines in one process."""
    return f"""
import sys
from fcos_cli.cli import main
for line in {lines!r}:
    sys.argv = ["fcos", *line.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_help_loads_nothing_heavy() -> None:
    assert loaded_after(ask("--version", "--help"), HEAVY) == []


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    code = ask(*(f"{command} --help" for command in ("train", "eval", "predict", "info", "convert")))
    # newer versions of Typer import pydantic themselves to read a command's options
    assert loaded_after(code, tuple(name for name in HEAVY if name != "pydantic")) == []


def test_importing_the_package_loads_nothing_heavy_and_offers_its_public_names() -> None:
    assert loaded_after("import fcos_cli; assert fcos_cli.__version__", (*HEAVY, "typer", "rich")) == []
    assert {"FCOS", "Detections", "load", "__version__"} == set(fcos_cli.__all__)
    for name in fcos_cli.__all__:
        assert getattr(fcos_cli, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        fcos_cli.nonsense  # noqa: B018


def test_the_prediction_path_of_an_exported_model_needs_no_torch() -> None:
    rooms = ("config", "data", "runtime", "predict", "evaluate")
    with_torch = ("data.training_set", "data.dataset", "data.transforms", "runtime.pytorch")
    names = [name_of(file) for file in FILES]
    modules = [name for name in names if name.split(".")[1:2] and name.split(".")[1] in rooms]
    light = [name for name in modules if not name.startswith(tuple(f"fcos_cli.{room}" for room in with_torch))]
    assert len(light) > 40
    assert loaded_after("\n".join(f"import {name}" for name in light), ("torch", "torchvision", "timm")) == []
